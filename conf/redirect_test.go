package conf

import "testing"

func TestPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"f", "f", true}, {"f", "F", true}, {"f", "public.f", false}, {"f", "ff", false},
		{"nextval|setval", "setval", true},
		{"a.*", "abc", true}, {"a.*", "bac", false}, {"^a.*$", "abc", true},
		{"select.*from t", "SELECT 1\nFROM t", true}, // a dot matches a newline
		{"my.*_[0-4]", "mydb_3", true}, {"[[:digit:]]+", "123", true}, {"", "", true}, {"", "x", false},
	} {
		re, err := Pattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if re.MatchString(tt.text) != tt.want {
			t.Errorf("%q against %q is %v", tt.pattern, tt.text, !tt.want)
		}
	}
	for _, bad := range []string{"(", "[", "a**"} {
		if _, err := Pattern(bad); err == nil {
			t.Errorf("%q compiles", bad)
		}
	}
}

func TestRedirects(t *testing.T) {
	list, detail := parseRedirects(`postgres:primary, mydb[0-4]:1(0.3) ,a:b:STANDBY,last:127(0)`, "db")
	if detail != "" {
		t.Fatal(detail)
	}
	for _, tt := range []struct {
		name   string
		target RedirectTarget
		node   int
		weight float64
	}{
		{"postgres", ToPrimary, 0, 1}, {"MyDB2", ToNode, 1, .3}, {"a:b", ToStandby, 0, 1}, {"last", ToNode, 127, 0},
	} {
		r, ok := list.Find(tt.name)
		if !ok || r.Target != tt.target || r.Node != tt.node || r.Weight != tt.weight {
			t.Errorf("%s: %+v, %v", tt.name, r, ok)
		}
	}
	if _, ok := list.Find("mydb5"); ok {
		t.Error("mydb5 is redirected")
	}
	for _, bad := range []string{"a", "a:", "a:-1", "a:128", "a:1(", "a:1(x)", "a:1(1.1)", "a:1(-0.1)", "a:1(NaN)", "(:1"} {
		if _, detail := parseRedirects(bad, "db"); detail == "" {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzRedirects(f *testing.F) {
	f.Add("a:1(0.5),b:primary")
	f.Add(`\,:((`)
	f.Fuzz(func(t *testing.T, s string) {
		list, detail := parseRedirects(s, "db")
		for _, r := range list.Rules {
			if detail == "" && (r.Name == nil || r.Node < 0 || r.Node >= MaxBackends || !(r.Weight >= 0 && r.Weight <= 1)) {
				t.Errorf("rule %+v", r)
			}
		}
	})
}
