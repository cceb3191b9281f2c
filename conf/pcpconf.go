package conf

import (
	"fmt"
	"os"
	"strings"
)

const maxPcpField = 128

// PcpConf is a pcp.conf file: who may administer the server.
type PcpConf struct {
	Notices []Notice // lines that were passed over
	hashes  map[string][]string
}

// LoadPcpConf reads a pcp.conf file.
func LoadPcpConf(path string) (*PcpConf, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{File: path, Text: "failed to authenticate PCP user",
			Detail: fmt.Sprintf("could not open %s. reason: %s", path, reason(err)), Err: err}
	}
	return parsePcpConf(path, string(src))
}

func parsePcpConf(path, src string) (*PcpConf, error) {
	p := &PcpConf{hashes: map[string][]string{}}
	for i, line := range strings.Split(src, "\n") {
		line = strings.TrimRight(line, " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok {
			p.Notices = append(p.Notices, Notice{Level: LevelWarning, File: path, Line: i + 1,
				Text:   fmt.Sprintf("invalid line %d in %q", i+1, path),
				Detail: "the line has no colon", Hint: "Lines are user:hash, with the hash from pg_md5. The line is ignored."})
			continue
		}
		hash, _, _ = strings.Cut(hash, ":")
		if len(user) > maxPcpField || len(hash) > maxPcpField {
			return nil, &Error{File: path, Line: i + 1, Text: fmt.Sprintf("invalid line %d in %q", i+1, path),
				Detail: fmt.Sprintf("user or hash is longer than %d bytes", maxPcpField)}
		}
		p.hashes[user] = append(p.hashes[user], hash)
	}
	return p, nil
}

// Hashes gives the hex md5 hashes of a user's passwords; any of them opens the door.
func (p *PcpConf) Hashes(user string) []string { return p.hashes[user] }

// PcpPassword finds a password in a .pcppass file, whose lines are
// host:port:user:password with * for any; the first that fits counts. The host is "localhost"
// for the default socket directory, else as given. An unreadable file, or
// one that others may read, has no passwords; the latter is a notice.
func PcpPassword(path, host, port, user string) (password string, ok bool, notices []Notice) {
	info, err := os.Stat(path)
	if err != nil {
		return "", false, nil
	}
	ignored := func(text, hint string) (string, bool, []Notice) {
		return "", false, []Notice{{Level: LevelWarning, File: path, Text: fmt.Sprintf(text, path), Hint: hint}}
	}
	switch {
	case !info.Mode().IsRegular():
		return ignored("password file %q is not a plain file", "")
	case info.Mode().Perm()&0o077 != 0:
		return ignored("password file %q has group or world access; permissions should be u=rw (0600) or less", "The file is ignored.")
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return "", false, nil
	}
	password, ok = findPcppass(string(src), PcppassHost(host), port, user)
	return password, ok, nil
}

// PcppassHost is the host a .pcppass line must name.
func PcppassHost(host string) string {
	if host == "" || host == defaultSocketDir {
		return "localhost"
	}
	return host
}

func findPcppass(src, host, port, user string) (string, bool) {
	for line := range strings.SplitSeq(src, "\n") {
		fields := splitEscapedRaw(strings.TrimSuffix(line, "\r"))
		if len(fields) < 4 {
			continue
		}
		fits := true
		for i, want := range []string{host, port, user} {
			fits = fits && (fields[i] == "*" || unescape(fields[i]) == want)
		}
		if fits {
			return unescape(fields[3]), true
		}
	}
	return "", false
}

// splitEscapedRaw cuts at colons that no backslash protects and leaves the
// backslashes, so that \* is not the star that means any.
func splitEscapedRaw(line string) []string {
	var fields []string
	from := 0
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case ':':
			fields = append(fields, line[from:i])
			from = i + 1
		}
	}
	return append(fields, line[from:])
}

// unescape drops the backslashes that protect the byte after them.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
