package session

import (
	"pgpool-go/parser"
	"pgpool-go/pgpool/route"
)

// portal is a portal of the client, which lives on one server.
type portal struct {
	name     string
	server   *server // nil: closed, the record of the unnamed one is kept for its room
	verdict  *parser.Verdict
	decision route.Decision
	stmt     *statement // for the log; nil if it is not known
	local    *local     // a pool command's, which no server knows
	copy     *copied    // of stmt, if the server is a shared one
}

// portals are those of the client. Most clients know the unnamed one only, and ask
// for it several times per statement.
type portals struct {
	unnamed *portal
	named   map[string]*portal
}

// find is the portal of that name; nil, there is none. The unnamed one may be a
// record that nothing belongs to.
func (l *portals) find(name []byte) *portal {
	if len(name) == 0 {
		return l.unnamed
	}
	return l.named[string(name)]
}

func (l *portals) put(p *portal) {
	switch {
	case p.name == "":
		l.unnamed = p
	case l.named == nil:
		l.named = map[string]*portal{p.name: p}
	default:
		l.named[p.name] = p
	}
}

func (l *portals) drop(name string) {
	if name == "" {
		l.unnamed = nil
	} else {
		delete(l.named, name)
	}
}

// close ends the unnamed portal, whose record is kept.
func (p *portal) close() {
	if p != nil {
		p.server, p.local = nil, nil
	}
}

// close forgets the portals, which end with their transaction.
func (l *portals) close() {
	l.unnamed.close()
	clear(l.named)
}

// lost forgets those of a server that is gone.
func (l *portals) lost(c *server) {
	if l.unnamed != nil && l.unnamed.server == c {
		l.unnamed = nil
	}
	for name, p := range l.named {
		if p.server == c {
			delete(l.named, name)
		}
	}
}

// orphan takes the statement from those that were made of it.
func (l *portals) orphan(st *statement) {
	if l.unnamed != nil && l.unnamed.stmt == st {
		l.unnamed.stmt = nil
	}
	for _, p := range l.named {
		if p.stmt == st {
			p.stmt = nil
		}
	}
}
