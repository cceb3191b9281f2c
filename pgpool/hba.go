package pgpool

import (
	"fmt"

	"pgpool-go/conf"
	"pgpool-go/pgpool/pam"
)

// loadHba reads pool_hba.conf and refuses what this build cannot carry out.
func loadHba(path string) (*conf.Hba, error) {
	hba, err := conf.LoadHba(path)
	if err != nil || pam.Available {
		return hba, err
	}
	for i := range hba.Rules {
		if r := &hba.Rules[i]; r.Method == conf.MethodPAM {
			return nil, &conf.Error{File: r.File, Line: r.Line, Text: `invalid authentication method "pam": this build has no PAM`,
				Detail: fmt.Sprintf("file %q, line %d", r.File, r.Line), Hint: "Build where PAM's headers are (libpam0g-dev), with make build."}
		}
	}
	return hba, nil
}
