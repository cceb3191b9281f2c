package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgpool-go/pgpool/wire"
	"pgpool-go/tools/testcluster"
)

// passwords which SASLprep changes, refuses or leaves alone.
var passwords = map[string]string{
	"ascii":            `pass 'word" \ 1`,
	"composed":         "caf\u00e9",
	"decomposed":       "cafe\u0301",
	"ligature":         "\ufb01sh",
	"roman numeral":    "pass\u2168",
	"soft hyphen":      "I\u00adX",
	"foreign space":    "a\u2003b\u00a0c",
	"nothing left":     "\u00ad\u200d",
	"zero width space": "a\u200bb",
	"emoji":            "\U0001f600\ufb01", // not known to Unicode 3.2: taken as bytes
	"control":          "a\u0085\ufb01",
	"hebrew":           "\u05d0\u05d1\u05d2",
	"mixed directions": "\u05d0a\ufb01",
	"ends not hebrew":  "\u05d0\ufb011",
	"private use":      "\ue000\ufb01",
	"wide":             "\uff50\uff41\uff53\uff53",
	"hangul":           "\u1112\u1161\u11ab",
	"long":             strings.Repeat("x\u00e9", 300),
}

func TestRealServer(t *testing.T) {
	c := testcluster.New(t, testcluster.Options{HBA: []string{
		"host all r_trust all trust",
		"host all r_md5,r_md5scram all md5",
		"host all r_scram,r_other,nobody all scram-sha-256",
		"host all r_plain all password",
		"host all r_reject all reject",
		"host all all all scram-sha-256",
	}})
	for _, role := range []string{"trust", "scram", "plain", "reject", "md5scram", "other"} {
		c.MustExec(0, "create role r_"+role+" login password 'secret'")
	}
	c.MustExec(0, "set password_encryption = md5; create role r_md5 login password 'secret'")
	node := c.Nodes[0]
	stored := func(role string) string {
		return strings.TrimSpace(c.MustExec(0, "select rolpassword from pg_authid where rolname = '"+role+"'"))
	}
	if got, want := StoredMD5("secret", "r_md5"), stored("r_md5"); got != want {
		t.Errorf("md5 form %s, the server's %s", got, want)
	}
	verifier, err := ParseVerifier(stored("r_scram"))
	if err != nil {
		t.Fatal(err)
	}
	// keys are won as pgpool would: from a client that passed against the verifier.
	atFront, err := login(t, "r_scram", Plan{Ask: AskSCRAM, Known: Verified(verifier)}, Plain("secret"))
	if err != nil {
		t.Fatal(err)
	}
	keys := atFront.cred

	for _, tc := range []struct {
		name, role string
		cred       Credential
		asked      string
		want       string // words of the error; "" lets in
		state      string
	}{
		{"trust", "r_trust", Credential{}, "trust", "", ""},
		{"md5 with password", "r_md5", Plain("secret"), "md5", "", ""},
		{"md5 with hash", "r_md5", Hashed(StoredMD5("secret", "r_md5")), "md5", "", ""},
		{"md5 with the stored hash", "r_md5", Hashed(stored("r_md5")), "md5", "", ""},
		{"md5, wrong", "r_md5", Plain("wrong"), "md5", `authentication failed: password authentication failed for user "r_md5"`, "28P01"},
		{"md5 with keys", "r_md5", keys, "md5", "failed to authenticate with backend using md5: valid password not found", "28000"},
		{"scram", "r_scram", Plain("secret"), "scram-sha-256", "", ""},
		{"scram, wrong", "r_scram", Plain("wrong"), "scram-sha-256", `backend authentication failed: password authentication failed for user "r_scram"`, "28P01"},
		{"scram with hash", "r_scram", Hashed(StoredMD5("secret", "r_scram")), "scram-sha-256", "failed to authenticate with backend using SCRAM: valid password not found", "28000"},
		{"scram with keys", "r_scram", keys, "scram-sha-256", "", ""},
		{"scram with keys of another verifier", "r_other", keys, "scram-sha-256", "failed to authenticate with backend using SCRAM: valid password not found", "28000"},
		{"scram behind md5", "r_md5scram", Plain("secret"), "scram-sha-256", "", ""},
		{"clear text", "r_plain", Plain("secret"), "password", "", ""},
		{"clear text, wrong", "r_plain", Plain("wrong"), "password", `authentication failed: password authentication failed for user "r_plain"`, "28P01"},
		{"clear text with nothing", "r_plain", Credential{}, "password", "clear text password authentication failed: unable to get the password", "28000"},
		{"no such role", "nobody", Plain("secret"), "scram-sha-256", `backend authentication failed: password authentication failed for user "nobody"`, "28P01"},
		{"rejected", "r_reject", Plain("secret"), "", `backend authentication failed: pg_hba.conf rejects connection for host "127.0.0.1", user "r_reject", database "postgres", no encryption`, "28000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := dialServer(t, node.Host, node.Port, tc.role)
			m, err := ReadMethod(s)
			if m.String() != tc.asked {
				t.Fatalf("asked for %q, expected %q", m, tc.asked)
			}
			if err == nil {
				err = Answer(s, m, tc.role, tc.cred)
			}
			if tc.want != "" {
				e, ok := errors.AsType[*Error](err)
				if !ok || e.Error() != tc.want || e.SQLState != tc.state || e.Severity != "FATAL" {
					t.Fatalf("got %+v (%v)", e, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if typ, _, err := s.receive(); err != nil || typ != 'S' {
				t.Fatalf("after login: %q, %v", typ, err)
			}
		})
	}

	t.Run("passwords", func(t *testing.T) {
		for name, password := range passwords {
			t.Run(name, func(t *testing.T) {
				quoted := "'" + strings.ReplaceAll(password, "'", "''") + "'"
				c.MustExec(0, "drop role if exists r_pw; create role r_pw login password "+quoted)
				v, err := ParseVerifier(stored("r_pw"))
				if err != nil {
					t.Fatal(err)
				}
				if !v.Check(password) {
					t.Errorf("verifier of %+q is not the server's", password)
				}
				if v.Check(password + "x") {
					t.Error("a longer password passes")
				}
				if err := Login(dialServer(t, node.Host, node.Port, "r_pw"), "r_pw", Plain(password)); err != nil {
					t.Errorf("login with %+q: %v", password, err)
				}
			})
		}
	})

	t.Run("many at once", func(t *testing.T) {
		var all sync.WaitGroup
		errs := make(chan error, 40)
		for range cap(errs) {
			s := dialServer(t, node.Host, node.Port, "r_scram")
			all.Go(func() { errs <- Login(s, "r_scram", Plain("secret")) })
		}
		all.Wait()
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("own words of a server that cannot serve", func(t *testing.T) {
		s := &sayingServer{err: wire.Fatal("57P03", "the database system is starting up")}
		_, err := ReadMethod(s)
		if e, ok := err.(*wire.Error); !ok || e.Code != "57P03" {
			t.Fatalf("got %v", err)
		}
	})
}

type sayingServer struct{ err error }

func (s *sayingServer) ReceiveAuth() ([]byte, error)   { return nil, s.err }
func (s *sayingServer) ChannelBinding() []byte         { return nil }
func (s *sayingServer) SendPassword(body []byte) error { return nil }

// TestRealClients lets PostgreSQL's own client and pgx in, and keeps them out.
func TestRealClients(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Fatal("psql is not installed")
	}
	clients := map[string]func(port int, password string) error{
		"psql": func(port int, password string) error {
			cmd := exec.Command(psql, "-X", "-w", "-c", ";", fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=d sslmode=prefer", port, user))
			cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "LC_ALL=C.UTF-8")
			if out, err := cmd.CombinedOutput(); err != nil {
				return errors.New(string(bytes.TrimSpace(out)))
			}
			return nil
		},
		"pgx": func(port int, password string) error {
			cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=d sslmode=disable", port, user))
			if err != nil {
				return err
			}
			cfg.Password = password
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			c, err := pgconn.ConnectConfig(ctx, cfg)
			if err != nil {
				return err
			}
			return c.Close(ctx)
		},
	}
	const password = "s\u00e9cret 1"
	v, err := NewVerifier(password, []byte("some salt"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	plans := map[string]Plan{
		"trust":              {Known: Plain(password)},
		"password":           {Ask: AskPassword, Known: Plain(password)},
		"password and hash":  {Ask: AskPassword, Known: Hashed(StoredMD5(password, user))},
		"password, verifier": {Ask: AskPassword, Known: Verified(v)},
		"md5":                {Ask: AskMD5, Known: Plain(password)},
		"md5 and hash":       {Ask: AskMD5, Known: Hashed(StoredMD5(password, user))},
		"scram":              {Ask: AskSCRAM, Known: Plain(password)},
		"scram and verifier": {Ask: AskSCRAM, Known: Verified(v)},
		"mock md5":           {Ask: AskMD5, Mock: true},
		"mock scram":         {Ask: AskSCRAM, Mock: true},
	}
	for name, plan := range plans {
		t.Run(name, func(t *testing.T) {
			for client, connect := range clients {
				g := openGate(t, user, plan)
				err, at := connect(g.port, password), <-g.results
				switch {
				case plan.Mock:
					if err == nil || !strings.Contains(err.Error(), wrong(plan.Ask, user).Message) || at.err == nil {
						t.Errorf("%s: mock gave %v, %v", client, err, at.err)
					}
					continue
				case err != nil || at.err != nil:
					t.Errorf("%s: %v, at server %v", client, err, at.err)
					continue
				case at.cred.Form() == FormNone:
					t.Errorf("%s: nothing to show to servers", client)
				}
				if plan.Ask == AskNothing {
					continue
				}
				err, at = connect(g.port, "wrong"), <-g.results
				if err == nil || at.err == nil || !strings.Contains(err.Error(), "FATAL") || !strings.Contains(err.Error(), wrong(plan.Ask, user).Message) {
					t.Errorf("%s with a wrong password: %v, at server %v", client, err, at.err)
				}
				if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code != "28P01" {
					t.Errorf("%s: SQLSTATE %s", client, pgErr.Code)
				}
			}
		})
	}
	t.Run("odd passwords by psql", func(t *testing.T) {
		for name, password := range passwords {
			g := openGate(t, user, Plan{Ask: AskSCRAM, Known: Plain(password)})
			if err, at := clients["psql"](g.port, password), <-g.results; err != nil || at.err != nil {
				t.Errorf("%s: %v, at server %v", name, err, at.err)
			}
		}
	})
	t.Run("psql that insists on channel binding", func(t *testing.T) {
		g := openGate(t, user, Plan{Ask: AskSCRAM, Known: Plain(password)})
		out, err := exec.Command(psql, "-X", "-w", "-c", ";", fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=d password=x channel_binding=require", g.port, user)).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "channel binding") {
			t.Errorf("%v: %s", err, out)
		}
		<-g.results
	})
}
