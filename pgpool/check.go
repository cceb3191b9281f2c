package pgpool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"pgpool-go/conf"
)

// Finding is one thing that `pgpool check` has to say.
type Finding struct {
	Level   string `json:"level"` // error, warning or info
	Kind    string `json:"kind"`  // a conf.NoticeKind, or "file", "server"
	Setting string `json:"setting,omitempty"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // 0: the file as a whole
	Node    *int   `json:"node,omitempty"` // of the server it is about
	Text    string `json:"text"`
	Detail  string `json:"detail,omitempty"`
	Mend    string `json:"mend,omitempty"`
}

// Levels of findings.
const (
	FoundError   = "error"
	FoundWarning = "warning"
	FoundInfo    = "info"
)

// Check looks for what is wrong with the configuration, without starting
// anything. Live also asks the servers and looks at the files of this host; it
// ends when ctx does. An error means that nothing could be looked at.
func Check(ctx context.Context, paths conf.Paths, live bool) ([]Finding, error) {
	c, notices, err := conf.Examine(paths)
	if err != nil {
		return nil, err
	}
	k := &checker{}
	k.notices(notices)
	if c == nil {
		return k.found, nil
	}
	k.Config = c
	k.notices(c.Ineffective(ineffective))
	k.notices(c.Advice())
	k.hba()
	k.passwords()
	if live {
		k.files()
		if err := k.servers(ctx); err != nil {
			return k.found, err
		}
	}
	return k.found, nil
}

// checker collects findings about one configuration.
type checker struct {
	*conf.Config
	found []Finding
}

func (k *checker) notices(all []conf.Notice) {
	for _, n := range all {
		level := FoundInfo
		switch {
		case n.Level >= conf.LevelError:
			level = FoundError
		case n.Level >= conf.LevelWarning:
			level = FoundWarning
		case n.Level == conf.LevelLog: // how the server read it, nothing to mend
			continue
		}
		k.found = append(k.found, Finding{Level: level, Kind: string(n.Kind), Setting: n.Setting, File: n.File, Line: n.Line,
			Text: n.Text, Detail: n.Reason(), Mend: n.Hint})
	}
}

// problem is err as a finding, with its place if it knows one.
func (k *checker) problem(level, setting string, err error) {
	f := Finding{Level: level, Kind: string(conf.KindInvalid), Setting: setting, Text: err.Error()}
	if bad, ok := errors.AsType[*conf.Error](err); ok {
		f.File, f.Line, f.Text, f.Detail, f.Mend = bad.File, bad.Line, bad.Text, bad.Detail, bad.Hint
	}
	k.found = append(k.found, f)
}

// about is a finding with the place where the setting was set.
func (k *checker) about(f Finding) {
	f.File = k.Paths.Conf
	if src, ok := k.Source(f.Setting); ok {
		f.File, f.Line = src.File, src.Line
	}
	k.found = append(k.found, f)
}

// hba reads pool_hba.conf, with which every client stands or falls.
func (k *checker) hba() {
	if !k.EnablePoolHba {
		return
	}
	hba, err := loadHba(k.Paths.Hba)
	if err != nil {
		k.problem(FoundError, "enable_pool_hba", fmt.Errorf("pgpool will not start: %w", err))
		return
	}
	for _, n := range hba.Notices {
		k.found = append(k.found, Finding{Level: FoundWarning, Kind: string(conf.KindIneffective), File: n.File, Line: n.Line,
			Text: n.Text, Detail: n.Reason(), Mend: n.Hint})
	}
	for i := range hba.Rules {
		r := &hba.Rules[i]
		switch {
		case r.Method == conf.MethodTrust && r.Remote():
			k.found = append(k.found, Finding{Level: FoundWarning, Kind: string(conf.KindDangerous), File: r.File, Line: r.Line,
				Text: "clients on other hosts are let in without a password", Detail: "The method is trust.", Mend: "Use scram-sha-256."})
		case r.Method == conf.MethodPassword && r.Remote() && r.Type != conf.TypeHostSSL:
			k.found = append(k.found, Finding{Level: FoundWarning, Kind: string(conf.KindDangerous), File: r.File, Line: r.Line,
				Text: "passwords cross the network in clear text", Detail: "The method is password, and the rule is for connections without TLS, too.",
				Mend: "Use scram-sha-256, or hostssl."})
		}
	}
}

// passwords reads pool_passwd and pcp.conf.
func (k *checker) passwords() {
	if path := k.PoolPasswdFile(); path != "" {
		passwd, err := conf.LoadPoolPasswd(path, k.PassKey())
		if err != nil {
			k.problem(FoundError, "pool_passwd", err)
		} else {
			k.notices(passwd.Notices)
		}
	}
	if k.PcpPort == 0 {
		return
	}
	accounts, err := conf.LoadPcpConf(k.Paths.Pcp)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.found = append(k.found, Finding{Level: FoundWarning, Kind: "file", File: k.Paths.Pcp, Text: "there is no pcp.conf: nobody can use the administrative port",
			Mend: "Write user:hash into it, with the hash that pg_md5 prints."})
	case err != nil:
		k.problem(FoundError, "", err)
	default:
		k.notices(accounts.Notices)
	}
}

// secretFiles are to be read by pgpool alone.
func (k *checker) secretFiles() map[string]string {
	files := map[string]string{k.Paths.Pcp: "password hashes", k.Paths.Key: "the key to encrypted passwords", k.PoolPasswdFile(): "passwords"}
	if k.Ssl {
		files[k.Beside(k.SslKey)] = "the private key of TLS"
	}
	for _, password := range []string{k.HealthCheckPassword, k.SrCheckPassword, k.RecoveryPassword, k.WdLifecheckPassword} {
		if password != "" && conf.ParseSecret(password, nil).Kind == conf.Plain {
			files[k.Paths.Conf] = "a password in clear text"
		}
	}
	delete(files, "")
	return files
}

// owned looks at a file's mode.
func (k *checker) owned(path, holds string) {
	info, err := os.Stat(path)
	if err != nil {
		return // whoever needs the file has said so
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		k.found = append(k.found, Finding{Level: FoundWarning, Kind: "file", File: path,
			Text: "others may read or change a file that holds " + holds, Detail: fmt.Sprintf("Its mode is %04o.", mode),
			Mend: fmt.Sprintf("chmod 600 %s, with pgpool's user as its owner.", path)})
	}
}
