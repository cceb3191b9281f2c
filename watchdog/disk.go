package watchdog

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"pgpool-go/watchdog/election"
)

// The state file is a heading with a checksum, then the saved state as JSON.
const heading = "pgpool-go watchdog state 1 "

// load reads what a node has promised and accepted. Without a file, or with one
// that cannot be trusted, it is another voter with an incarnation of its own;
// err then says what is wrong with the file, nil if there is none.
func load(path string) (election.Saved, error) {
	fresh := election.Saved{Incarnation: incarnation()}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return fresh, err
	} else if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fresh, fmt.Errorf("it belongs to user %d", st.Uid)
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(f); err != nil {
		return fresh, err
	}
	saved, err := parseState(text.Bytes())
	if err != nil {
		return fresh, err
	}
	return saved, nil
}

func parseState(text []byte) (election.Saved, error) {
	head, body, ok := bytes.Cut(text, []byte("\n"))
	if !ok || string(head) != stateHeading(body) {
		return election.Saved{}, errors.New("it is damaged")
	}
	var s election.Saved
	if err := json.Unmarshal(body, &s); err != nil {
		return election.Saved{}, err
	}
	if s.Incarnation == 0 {
		return election.Saved{}, errors.New("it has no incarnation")
	}
	return s, nil
}

func stateHeading(body []byte) string {
	return fmt.Sprintf("%s%08x", heading, crc32.ChecksumIEEE(body))
}

// save returns when the state is surely on disk.
func save(path string, s election.Saved) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "%s\n%s", stateHeading(body), body)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// incarnation is a number that no other disk has.
func incarnation() uint64 {
	for {
		if n := random(); n != 0 {
			return n
		}
	}
}

func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
