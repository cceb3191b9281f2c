package wire

// A Tap takes down what is written to a Conn, up to a limit.
type Tap struct {
	Bytes   []byte
	Limit   int
	Over    bool // there was more
	Refused int  // the size of the first piece that was too much
}

// Tap has t take down what is passed on to c from now on; nil ends it. Messages
// composed by Send are not passed on.
func (c *Conn) Tap(t *Tap) { c.tap = t }

func (t *Tap) add(p []byte) {
	if t.Over || len(t.Bytes)+len(p) > t.Limit {
		if !t.Over {
			t.Over, t.Refused = true, len(p)
		}
		return
	}
	t.Bytes = append(t.Bytes, p...)
}
