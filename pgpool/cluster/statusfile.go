package cluster

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// readStatusFile returns the words of pgpool_status, a line per slot. A file
// of before 3.4, which holds numbers instead, is understood too.
func readStatusFile(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) > 0 && b[0] <= byte(Down) {
		return binaryStatus(b), nil
	}
	var words []string
	for line := range strings.Lines(string(b)) {
		words = append(words, strings.TrimSpace(line))
	}
	return words, nil
}

// binaryStatus reads the old form: a number per slot, one or four bytes wide.
func binaryStatus(b []byte) []string {
	width := 1
	if len(b) >= 4*128 {
		width = 4
	}
	var words []string
	for chunk := range slices.Chunk(b, width) {
		number := uint32(chunk[0])
		if len(chunk) == 4 {
			number = binary.NativeEndian.Uint32(chunk)
		}
		switch Status(number) {
		case Waiting, Up:
			words = append(words, "up")
		default:
			words = append(words, Status(number).String())
		}
	}
	return words
}

// writeStatusFile replaces pgpool_status, so that a crash leaves the old one
// or the new one.
func writeStatusFile(path string, words []string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".pgpool_status-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.WriteString(strings.Join(words, "\n") + "\n")
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// removeStatusFile forgets what was (pgpool -D).
func removeStatusFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
