package parser

import "testing"

func TestMoody(t *testing.T) {
	for text, want := range map[string]bool{
		"SELECT 'now'::timestamp": true, "SELECT date 'ToDay'": true, "WHERE d > 'yesterday'": true, "'tomorrow 10:00'": true, "SELECT now()": true,
		`SELECT E'\x6eow'::date`: true, `SELECT U&'\006eow'::date`: true, "SELECT date 'to'\n 'day'": true, "SELECT date 'to' -- x\n 'day'": true,
		"SELECT known, snow, nowhere, todays FROM t": false, "SELECT 'a', 'b'\nFROM t": false, "SELECT 1": false, "SELECT 'it''s'": false,
		"SELECT e.a, u.b FROM e, u": false, `SELECT 'a\b'`: false,
	} {
		if got := Moody([]byte(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
