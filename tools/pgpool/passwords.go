package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"pgpool-go/conf"
	"pgpool-go/pgpool"
	"pgpool-go/pgpool/auth"
)

// pg_md5 and pg_enc: passwords for pcp.conf and pool_passwd.

// maxPassword is what both tools accept, in bytes.
const maxPassword = 128

func md5Tool() *tool {
	return &tool{
		name: "pg_md5",
		options: []option{
			{long: "help", short: 'h'},
			{long: "prompt", short: 'p'},
			{long: "md5auth", short: 'm'},
			{long: "username", short: 'u', value: true},
			{long: "config-file", short: 'f', value: true},
			{long: "input-file", short: 'i', value: true},
		},
		words: gnuWords,
		seen: func(t *call, o option, _ string) error {
			if o.long == "help" {
				md5Help(t.out)
				return exit(0)
			}
			return nil
		},
		refused: func(t *call, err error) int {
			t.errorf("%v", err)
			md5Help(t.out)
			return 0
		},
		run: runMD5,
	}
}

func runMD5(t *call) int {
	store := t.given("md5auth")
	stored := func(name, password string) string { return auth.StoredMD5(password, name) }
	switch {
	case t.given("input-file"):
		return eachPair(t, store, stored, func(line int, name, password string, err error) {
			switch {
			case errors.Is(err, errBlank):
				fmt.Fprintf(t.out, "LINE#%02d: BLANK LINE\n", line)
			case err != nil:
				fmt.Fprintf(t.out, "LINE#%02d: Invalid username:password pair\n", line)
			default:
				fmt.Fprintf(t.out, "LINE#%02d: USER: <%s>\n", line, name)
				if !store {
					fmt.Fprintln(t.out, auth.PasswordMD5(password))
				}
			}
		})
	case !t.given("prompt") && len(t.operands()) == 0:
		md5Help(t.stderr)
		return 1
	}
	password, ok := askPassword(t, t.given("prompt"), "password: ")
	switch {
	case !ok:
		return 1
	case len(password) > maxPassword:
		t.errorf("Error: Input exceeds maximum password length!\n")
		md5Help(t.stderr)
		return 1
	case store:
		return storePassword(t, t.string("username"), password, stored)
	}
	fmt.Fprintln(t.out, auth.PasswordMD5(password))
	return 0
}

func encTool() *tool {
	return &tool{
		name: "pg_enc",
		options: []option{
			{long: "help", short: 'h'},
			{long: "prompt", short: 'p'},
			{long: "prompt-for-key", short: 'P'},
			{long: "update-pass", short: 'm'},
			{long: "username", short: 'u', value: true},
			{long: "enc-key", short: 'K', value: true},
			{long: "key-file", short: 'k', value: true},
			{long: "config-file", short: 'f', value: true},
			{long: "input-file", short: 'i', value: true},
		},
		words: gnuWords,
		seen: func(t *call, o option, _ string) error {
			if o.long == "help" {
				encHelp(t.out)
				return exit(0)
			}
			return nil
		},
		refused: func(t *call, err error) int {
			t.errorf("%v", err)
			encHelp(t.out)
			return 0
		},
		run: runEnc,
	}
}

func runEnc(t *call) int {
	var password string
	if !t.given("input-file") {
		var ok bool
		if password, ok = askPassword(t, t.given("prompt") || len(t.operands()) == 0, "db password: "); !ok {
			return 1
		}
		if len(password) > maxPassword {
			t.errorf("Error: Input exceeds maximum password length given:%d max allowed:%d!\n", len(password), maxPassword)
			encHelp(t.stderr)
			return 1
		}
	}
	key, ok := encryptionKey(t)
	if !ok {
		return 1
	}
	store := t.given("update-pass")
	stored := func(_, password string) string { return "AES" + conf.Encrypt(key, password) }
	show := func(password string) {
		text := conf.Encrypt(key, password)
		fmt.Fprintf(t.out, "\n%s\npool_passwd string: AES%s\n", text, text)
	}
	switch {
	case t.given("input-file"):
		return eachPair(t, store, stored, func(line int, _, password string, err error) {
			switch {
			case errors.Is(err, errBlank):
			case err != nil:
				t.errorf("LINE#%02d: invalid username:password pair", line)
			case !store:
				show(password)
			}
		})
	case store:
		return storePassword(t, t.string("username"), password, stored)
	}
	show(password)
	return 0
}

// encryptionKey finds the pass phrase: typed, given, or in a file.
func encryptionKey(t *call) (key []byte, ok bool) {
	if t.given("prompt-for-key") {
		text, ok := askPassword(t, true, "encryption key: ")
		if ok && text == "" {
			t.errorf("encryption key not provided")
		}
		return []byte(text), ok && text != ""
	}
	if text := t.string("enc-key"); text != "" {
		return []byte(text), true
	}
	file := t.string("key-file")
	if file == "" {
		file = os.Getenv("PGPOOLKEYFILE")
	}
	if file == "" {
		file = defaultKeyFile()
	}
	fmt.Fprintf(t.out, "trying to read key from file %s\n", file)
	key, notices, err := conf.LoadKey(file)
	for _, n := range notices {
		t.errorf("%s: pid %d: %s\n", n.Level, os.Getpid(), n.Text)
	}
	if err != nil || len(key) == 0 {
		t.errorf("encryption key not provided")
		return nil, false
	}
	return key, true
}

// defaultKeyFile is where a key is looked for if nothing else is said.
func defaultKeyFile() string { return filepath.Join(home(), ".pgpoolkey") }

// home is the folder of the user the process runs as, whatever HOME says: a
// service has none, and under su it may be another's.
func home() string {
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return os.Getenv("HOME")
}

// askPassword returns the first operand, or with typed what is typed. It reports
// whether there is one.
func askPassword(t *call, typed bool, text string) (string, bool) {
	if !typed {
		return t.operands()[0], true
	}
	if !isTerminal(t.in) {
		t.errorf("stdin is not tty")
		return "", false
	}
	return prompt(t, text), true
}

var (
	errBlank   = errors.New("blank line")
	errBadPair = errors.New("not username:password")
)

// eachPair reads user:password lines from the input file, shows each, and
// stores those that are right if asked to. Bad lines do not change the exit code.
func eachPair(t *call, store bool, stored func(user, password string) string, show func(line int, user, password string, err error)) int {
	file := t.string("input-file")
	fmt.Fprintf(t.out, "trying to read username:password pairs from file %s\n", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.errorf("failed to open input_file \"%s\" (%s)\n", file, reason(err))
		return 1
	}
	line := 0
	for text := range strings.Lines(string(text)) {
		line++
		text = strings.TrimRight(text, "\r\n")
		name, password, _ := strings.Cut(text, ":")
		switch {
		case text == "":
			show(line, "", "", errBlank)
		case password == "" || len(password) > maxPassword:
			show(line, "", "", errBadPair)
		default:
			show(line, name, password, nil)
			if store {
				if code := storePassword(t, name, password, stored); code != 0 {
					return code
				}
			}
		}
	}
	return 0
}

// storePassword writes the entry into the pool_passwd of the configuration.
func storePassword(t *call, name, password string, stored func(user, password string) string) int {
	if name == "" {
		u, err := user.Current()
		if err != nil {
			t.errorf("could not find out who you are: %v", err)
			return 1
		}
		name = u.Username
	}
	file := t.string("config-file")
	c, notices, err := conf.Load(conf.Paths{Conf: file})
	if err == nil {
		if file == "" {
			file = c.Paths.Conf
		}
		_, err = os.Stat(c.Paths.Conf) // without one there are defaults, but not for us
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			t.errorf("WARNING: pid %d: could not open configuration file: \"%s\"", os.Getpid(), file)
		} else {
			t.errorf("%v", err)
		}
		t.errorf("Unable to get configuration. Exiting...\n")
		return 1
	}
	for _, n := range notices {
		if n.Level >= conf.LevelWarning {
			t.errorf("%s", n)
		}
	}
	file = c.PoolPasswdFile()
	if file == "" { // disabled: the entry waits where the file would be
		file = c.Beside("pool_passwd")
	}
	if err := conf.UpdatePoolPasswd(file, name, stored(name, password)); err != nil {
		t.errorf("ERROR: %v", err)
		return 1
	}
	return 0
}

func md5Help(w io.Writer) {
	io.WriteString(w, `Usage:

  pg_md5 [OPTIONS]
  pg_md5 <PASSWORD>

  --prompt, -p         Prompt password using standard input.
  --md5auth, -m        Produce md5 authentication password.
  --username, -u USER  When producing a md5 authentication password,
                       create the pool_passwd entry for USER.
  --config-file, -f CONFIG-FILE  Specify pgpool.conf.
  --input-file, -i INPUT-FILE  Specify file containing username and password pairs.
  --help, -h           This help menu.

Warning: At most 128 characters are allowed for input.
Warning: Plain password argument is deprecated for security concerns
         and kept for compatibility. Please prefer using password
         prompt or input file method.
`)
}

func encHelp(w io.Writer) {
	fmt.Fprintf(w, `pgpool-II version %s,
  password encryption utility for Pgpool

Usage:
  pg_enc [OPTIONS] <PASSWORD>
  -k, --key-file=KEY_FILE
                       Set the path to the encryption key file.
                       Default: %s
                       Can be overridden by the PGPOOLKEYFILE environment variable.
  -K, --enc-key=ENCRYPTION_KEY
                       Encryption key to be used for encrypting database passwords.
  -f, --config-file=CONFIG_FILE
                       Specifies the pgpool.conf file.
  -i, --input-file=INPUT-FILE
                       Specify file containing username and password pairs.
  -p, --prompt         Prompt for database password using standard input.
  -P, --prompt-for-key Prompt for encryption key using standard input.
  -m, --update-pass    Create encrypted password entry in the pool_passwd file.
  -u, --username       The username for the pool_password entry.
  -h, --help           Print this help.

`, pgpool.Version, defaultKeyFile())
}
