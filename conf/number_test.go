package conf

import (
	"strings"
	"testing"
)

func TestParseInteger(t *testing.T) {
	const outOf = "outside the valid range"
	const tooBig = "Value exceeds allowed range."
	const invalid = "invalid value for parameter"
	tests := []struct {
		value string
		unit  unit
		want  int64
		err   string
	}{
		{"7", unitless, 7, ""},
		{"  7 ", unitless, 7, ""},
		{"+7", unitless, 7, ""},
		{"-7", unitless, -7, ""},
		{"0x10", unitless, 16, ""},
		{"0X1f", unitless, 31, ""},
		{"010", unitless, 8, ""},
		{"0600", unitless, 0o600, ""},
		{"2.5", unitless, 2, ""},
		{"1.6", unitless, 2, ""},
		{"3.5", unitless, 4, ""},
		{"1.0e1", unitless, 10, ""},
		{"1e1", unitless, 10, ""},
		{".5", unitless, 0, ""},
		{"2147483647", unitless, maxInt, ""},
		{"2147483648", unitless, 0, tooBig},
		{"99999999999999999999", unitless, 0, tooBig},
		{"1e400", unitless, 0, tooBig},
		{"", unitless, 0, invalid},
		{"banana", unitless, 0, invalid},
		{"08", unitless, 0, invalid},
		{"1_000", unitless, 0, invalid},
		{"-", unitless, 0, invalid},
		{".", unitless, 0, invalid},
		{"10s", unitless, 0, "without a unit"},
		{"2min", seconds, 120, ""},
		{"2 min", seconds, 120, ""},
		{"1d", minutes, 1440, ""},
		{"1.5h", seconds, 5400, ""},
		{"1500ms", seconds, 2, ""},
		{"500ms", seconds, 0, ""},
		{"90s", minutes, 2, ""},
		{"1s", milliseconds, 1000, ""},
		{"5S", seconds, 0, `Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".`},
		{"5 s x", seconds, 0, "Valid units"},
		{"0.5GB", octets, 512 << 20, ""},
		{"1025B", octets, 1025, ""},
		{"64MB", octets, 64 << 20, ""},
		{"1kb", octets, 0, `Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".`},
		{"10MB", kilobytes, 10240, ""},
		{"100000TB", octets, 0, tooBig},
		{"-2147483648", unitless, 0, outOf},
	}
	for _, tt := range tests {
		t.Run(tt.value+tt.unit.hint[:12], func(t *testing.T) {
			n, bad := parseInteger("p", tt.value, tt.unit, -1000, maxInt)
			switch {
			case tt.err == "" && bad != nil:
				t.Fatalf("%v", bad)
			case tt.err != "" && (bad == nil || !strings.Contains(bad.Error(), tt.err)):
				t.Fatalf("got %d, %v; want %q", n, bad, tt.err)
			case n != tt.want:
				t.Fatalf("got %d, want %d", n, tt.want)
			}
		})
	}
}

func TestUnitShow(t *testing.T) {
	for _, tt := range []struct {
		unit unit
		n    int64
		want string
	}{
		{seconds, 300, "5min"}, {seconds, 90, "90s"}, {seconds, 0, "0"}, {seconds, -1, "-1"}, {seconds, 86400, "1d"},
		{minutes, 1440, "1d"}, {minutes, 7, "7min"}, {milliseconds, 10000, "10s"}, {milliseconds, 1, "1ms"},
		{octets, 64 << 20, "64MB"}, {octets, 1025, "1025B"}, {kilobytes, 10240, "10MB"}, {octets, 409600, "400kB"},
	} {
		if got := tt.unit.show(tt.n); got != tt.want {
			t.Errorf("%d is shown as %q, want %q", tt.n, got, tt.want)
		}
	}
}

func FuzzParseInteger(f *testing.F) {
	for _, s := range []string{"1", "0x", "08", "1e", "+.e1", "9223372036854775807TB", "1.5 h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, u := range []unit{unitless, seconds, minutes, octets, kilobytes} {
			if n, bad := parseInteger("p", s, u, 0, 1000); bad == nil && (n < 0 || n > 1000) {
				t.Errorf("%q gives %d", s, n)
			}
		}
	})
}
