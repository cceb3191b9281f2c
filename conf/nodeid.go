package conf

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// LoadNodeID reads a pgpool_node_id file: this pgpool's number in the watchdog cluster.
func LoadNodeID(path string) (int, error) {
	src, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return 0, &Error{File: path, Err: err, Text: fmt.Sprintf("Pgpool node id file %s does not exist", path),
			Detail: "If watchdog is enable, pgpool_node_id file is required"}
	}
	if err != nil {
		return 0, &Error{File: path, Err: err, Text: fmt.Sprintf("could not open pgpool node id file %s", path), Detail: reason(err)}
	}
	line, _, _ := strings.Cut(string(src), "\n")
	line = strings.TrimSpace(line)
	where := fmt.Sprintf("file %q", path)
	if line == "" {
		return 0, &Error{File: path, Line: 1, Text: "pgpool_node_id file is empty", Detail: where}
	}
	if strings.Trim(line, "0123456789") != "" {
		return 0, &Error{File: path, Line: 1, Text: "pgpool_node_id is not a numeric value", Detail: where}
	}
	id, err := strconv.Atoi(line)
	if err != nil || id >= MaxWatchdogs {
		return 0, &Error{File: path, Line: 1, Detail: where,
			Text: fmt.Sprintf("Invalid pgpool node id %q, must be between 0 and %d", line, MaxWatchdogs-1)}
	}
	return id, nil
}
