package monitor

import (
	"testing"

	"pgpool-go/pgpool/cluster"
)

func TestRedirect(t *testing.T) {
	to := &cluster.Node{Host: "b.example", Port: 5433}
	for in, want := range map[string]string{
		"": "host='b.example' port=5433",
		"host=a port=5432 user=repl application_name=s1": "user='repl' application_name='s1' host='b.example' port=5433",
		`password='a\'b\\c d' host=a`:                    `password='a\'b\\c d' host='b.example' port=5433`,
	} {
		if got := redirect(in, to); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", in, got, want)
		}
	}
}

func TestLiteral(t *testing.T) {
	for in, want := range map[string]string{"a": "'a'", "it's": "'it''s'", `a\'b`: `E'a\\''b'`} {
		if got := literal(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
