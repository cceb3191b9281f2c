package conf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPcpConf(t *testing.T) {
	p, err := parsePcpConf("f", "# x:y\n\nadmin:1\nadmin:2\nshort\nbob:3:more\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Hashes("admin"), []string{"1", "2"}) || !slices.Equal(p.Hashes("bob"), []string{"3"}) || p.Hashes("short") != nil {
		t.Errorf("%v", p.hashes)
	}
	if len(p.Notices) != 1 || p.Notices[0].Line != 5 {
		t.Errorf("notices:\n%s", texts(p.Notices))
	}
	if _, err := parsePcpConf("f", "a:1\nb:"+strings.Repeat("x", 129)); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error is %v", err)
	}
	if _, err := LoadPcpConf("/nosuch/pcp.conf"); err == nil || err.Error() != "failed to authenticate PCP user; could not open /nosuch/pcp.conf. reason: no such file or directory" {
		t.Errorf("error is %v", err)
	}
	for name, users := range map[string]int{"guide": 1, "debian": 0} {
		p, err := LoadPcpConf("../testdata/conf/" + name + ".pcp.conf")
		if err != nil || len(p.hashes) != users || len(p.Notices) != 0 {
			t.Errorf("%s: %v %v", name, p, err)
		}
	}
}

func TestPcpPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), ".pcppass")
	os.WriteFile(file, []byte(`# comment
localhost:9898:admin:first
/tmp/x:9898:admin:dir
::1:9898:admin:never
\:\:1:9898:admin:six
host:*:ad\:min:a\:b\\c:cut
\*:9898:star:no
*:*:*:any
`), 0o600)
	for _, tt := range []struct{ host, port, user, want string }{
		{"", "9898", "admin", "first"}, {"/tmp", "9898", "admin", "first"}, {"localhost", "9898", "admin", "first"},
		{"/tmp/x", "9898", "admin", "dir"}, {"::1", "9898", "admin", "six"}, {"host", "1", "ad:min", `a:b\c`},
		{"h", "9898", "star", "any"}, {"*", "9898", "star", "no"}, {"x", "y", "z", "any"},
	} {
		if got, ok, _ := PcpPassword(file, tt.host, tt.port, tt.user); !ok || got != tt.want {
			t.Errorf("%+v: %q %v", tt, got, ok)
		}
	}
	os.Chmod(file, 0o644)
	if _, ok, notices := PcpPassword(file, "", "9898", "admin"); ok || len(notices) != 1 {
		t.Errorf("a file others may read is used: %v", notices)
	}
	if _, ok, notices := PcpPassword(file+"x", "", "9898", "admin"); ok || notices != nil {
		t.Error("a missing file is used")
	}
	if _, ok, notices := PcpPassword(t.TempDir(), "", "9898", "admin"); ok || len(notices) != 1 {
		t.Error("a directory is used")
	}
}

func FuzzPcppass(f *testing.F) {
	f.Add(`a:b:c:d\`)
	f.Fuzz(func(t *testing.T, src string) {
		findPcppass(src, "a", "b", "c")
		if _, err := parsePcpConf("f", src); err != nil && !strings.Contains(err.Error(), "line") {
			t.Error(err)
		}
	})
}
