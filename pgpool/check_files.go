package pgpool

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pgpool-go/conf"
	"pgpool-go/pgpool/session"
)

// files looks at what the configuration names on this host.
func (k *checker) files() {
	secrets := k.secretFiles()
	for _, path := range slices.Sorted(maps.Keys(secrets)) {
		k.owned(path, secrets[path])
	}
	k.folder(FoundError, "work_dir", filepath.Dir(k.StatusFile()), "pgpool_status is written there")
	k.folder(FoundWarning, "pid_file_name", filepath.Dir(k.PidFile()), "the pid file is written there; the service makes it before each start")
	for _, dir := range k.UnixSocketDirectories {
		k.folder(FoundError, "unix_socket_directories", dir, "clients' socket is made there")
	}
	for _, dir := range k.PcpSocketDir {
		k.folder(FoundError, "pcp_socket_dir", dir, "the administrative socket is made there")
	}
	if err := secure(&session.Current{Config: k.Config}); err != nil {
		k.problem(FoundError, "", err)
	}
	if k.Ssl {
		for _, f := range []struct{ setting, name string }{{"ssl_cert", k.SslCert}, {"ssl_key", k.SslKey}, {"ssl_ca_cert", k.SslCaCert}, {"ssl_crl_file", k.SslCrlFile}} {
			if _, err := os.Stat(k.Beside(f.name)); f.name != "" && err != nil {
				k.about(Finding{Level: FoundError, Kind: "file", Setting: f.setting, Text: fmt.Sprintf("%s cannot be read", f.setting), Detail: err.Error(),
					Mend: "Relative paths start from the directory of pgpool.conf."})
			}
		}
	}
	for _, cmd := range []struct{ setting, text string }{
		{"failover_command", k.FailoverCommand}, {"failback_command", k.FailbackCommand}, {"follow_primary_command", k.FollowPrimaryCommand},
		{"wd_escalation_command", k.WdEscalationCommand}, {"wd_de_escalation_command", k.WdDeEscalationCommand},
	} {
		k.program(cmd.setting, cmd.text)
	}
}

// folder must be there for the server to start.
func (k *checker) folder(level, setting, path, use string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		k.about(Finding{Level: level, Kind: "file", Setting: setting, Text: fmt.Sprintf("%s: %v", setting, err), Detail: strings.ToUpper(use[:1]) + use[1:] + ".",
			Mend: fmt.Sprintf("Make the directory %s, with pgpool's user as its owner.", path)})
	case !info.IsDir():
		k.about(Finding{Level: FoundError, Kind: "file", Setting: setting, Text: fmt.Sprintf("%s: %s is not a directory", setting, path)})
	}
}

// program looks for what a command's first word names, if that is a path.
func (k *checker) program(setting, command string) {
	first, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	if !filepath.IsAbs(first) || strings.ContainsAny(first, `'"$\;|&`) {
		return
	}
	info, err := os.Stat(first)
	switch {
	case err != nil:
		k.about(Finding{Level: FoundError, Kind: "file", Setting: setting, Text: fmt.Sprintf("%s cannot be run", setting), Detail: err.Error(), Mend: "Put the script there."})
	case info.Mode()&0o111 == 0:
		k.about(Finding{Level: FoundError, Kind: "file", Setting: setting, Text: fmt.Sprintf("%s cannot be run", setting),
			Detail: fmt.Sprintf("%s is not executable.", first), Mend: "chmod 755 " + first})
	case info.Mode().Perm()&0o002 != 0:
		k.about(Finding{Level: FoundWarning, Kind: string(conf.KindDangerous), Setting: setting, Text: "everybody may change what pgpool runs",
			Detail: fmt.Sprintf("The mode of %s is %04o.", first, info.Mode().Perm()), Mend: "chmod 755 " + first})
	}
}
