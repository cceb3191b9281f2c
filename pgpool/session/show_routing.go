package session

import (
	"pgpool-go/parser"
	"pgpool-go/pgpool/route"
)

var (
	routingColumns = []string{"reason", "count", "since"}
	explainColumns = []string{"item", "value"}
)

// showRouting has a row for every reason there is, in the order of the rules.
func (s *Session) showRouting() [][]string {
	counts, since := s.Slots.Routes()
	var rows [][]string
	for _, r := range route.Reasons() {
		rows = append(rows, []string{r.String(), count(counts[r]), when(since)})
	}
	return rows
}

// explain says where a statement would go now and why, without running it. What
// has to be known for that is looked up as for the statement itself.
func (s *Session) explain(sql string, extended bool) answer {
	v := s.Parser.Classify([]byte(sql))
	err := s.follow()
	var d route.Decision
	var evidence []route.Evidence
	if err == nil {
		in := s.input(v, []byte(sql), extended && v.Class != parser.Pool, 0)
		if d, err = s.decide(&in); d.Node == route.NoNode {
			err = nil // that is the answer
		}
		_, evidence = route.Explain(in)
	}
	if err != nil {
		word, other := s.ownWord(err)
		if other != nil {
			return answer{fatal: other}
		}
		return answer{err: word}
	}
	a := answer{cols: explainColumns}
	for _, e := range evidence {
		a.rows = append(a.rows, []string{e.What, e.Value})
	}
	if d.Node >= 0 && s.pipe.pinned && d.Node != s.main {
		a.rows = append(a.rows, []string{"pipeline", "stays on the primary after what is not a read"})
	}
	return a
}
