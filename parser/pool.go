package parser

// poolShows are the SHOW commands that pgpool answers by itself.
var poolShows = map[string]bool{
	"pool_status": true, "pool_nodes": true, "pool_pools": true, "pool_processes": true, "pool_version": true,
	"pool_cache": true, "pool_health_check_stats": true, "pool_backend_stats": true, "pool_routing": true, "pool_watchdog": true, "pool_shares": true,
	"pool_cache_statements": true,
}

// poolCommand recognises pgpool's own commands at the front of a text. What
// follows the first semicolon is dropped, as the original does.
func poolCommand(sql []byte) (*PoolCommand, bool) {
	t := tokens{b: sql}
	t.next()
	for t.kind == ';' {
		t.next()
	}
	switch {
	case t.isWord("show"):
		t.next()
		name, ok := t.name()
		if !ok || !poolShows[name] {
			return nil, false
		}
		if t.next(); name == "pool_cache" && t.isWord("statements") {
			name += "_statements"
			t.next()
		}
		return &PoolCommand{Op: PoolShow, Name: name}, t.atEnd()
	case t.isWord("pgpool"):
		t.next()
		return t.pgpool()
	case t.isWord("explain"):
		t.next()
		if !t.isWord("routing") {
			return nil, false
		}
		rest := trimSpace(sql[t.pos:])
		return &PoolCommand{Op: PoolExplain, Value: string(rest)}, len(rest) > 0
	}
	return nil, false
}

// pgpool reads what follows PGPOOL.
func (t *tokens) pgpool() (*PoolCommand, bool) {
	switch {
	case t.isWord("show"):
		t.next()
		if t.isWord("all") {
			t.next()
			return &PoolCommand{Op: PoolShowAll}, t.atEnd()
		}
		name, ok := t.name()
		t.next()
		return &PoolCommand{Op: PoolShowSetting, Name: name}, ok && t.atEnd()
	case t.isWord("reset"):
		t.next()
		if t.isWord("all") {
			t.next()
			return &PoolCommand{Op: PoolResetAll}, t.atEnd()
		}
		name, ok := t.name()
		t.next()
		return &PoolCommand{Op: PoolReset, Name: name}, ok && t.atEnd()
	case t.isWord("set"):
		t.next()
		if t.isWord("cache") {
			save := *t
			if t.next(); t.isWord("delete") {
				if t.next(); t.kind != 's' {
					return nil, false
				}
				value := t.text
				t.next()
				return &PoolCommand{Op: PoolCacheDelete, Value: value}, t.atEnd()
			}
			*t = save
		}
		name, ok := t.name()
		if !ok {
			return nil, false
		}
		t.next()
		if t.kind != '=' && !t.isWord("to") {
			return nil, false
		}
		t.next()
		cmd := &PoolCommand{Op: PoolSet, Name: name}
		switch t.kind {
		case 'w':
			if t.isWord("default") {
				cmd.Op = PoolSetDefault
			} else {
				cmd.Value = t.text
			}
		case 's', 'q', 'n':
			cmd.Value = t.text
		case '-', '+':
			sign := t.kind
			if t.next(); t.kind != 'n' {
				return nil, false
			}
			cmd.Value = t.text
			if sign == '-' {
				cmd.Value = "-" + t.text
			}
		default:
			return nil, false
		}
		t.next()
		return cmd, t.atEnd()
	}
	return nil, false
}

// tokens reads the few kinds of tokens that pgpool's commands consist of. Kind is
// 'w' word, 'q' quoted name, 's' string, 'n' number, 0 the end, else the byte.
type tokens struct {
	b    []byte
	pos  int // behind the token
	kind byte
	text string // words folded
}

func (t *tokens) isWord(w string) bool { return t.kind == 'w' && t.text == w }
func (t *tokens) atEnd() bool          { return t.kind == 0 || t.kind == ';' }

// name is the token as a (possibly dotted) name.
func (t *tokens) name() (string, bool) {
	if t.kind != 'w' && t.kind != 'q' {
		return "", false
	}
	name := t.text
	for t.pos+1 < len(t.b) && t.b[t.pos] == '.' {
		t.pos++
		if t.next(); t.kind != 'w' && t.kind != 'q' {
			return "", false
		}
		name += "." + t.text
	}
	return name, true
}

func (t *tokens) next() {
	b := t.b
	t.kind, t.text = 0, ""
	for t.pos < len(b) {
		i := t.pos
		c := b[i]
		switch charKinds[c] {
		case ckSpace:
			t.pos++
			continue
		case ckMinus:
			if i+1 < len(b) && b[i+1] == '-' {
				for t.pos < len(b) && b[t.pos] != '\n' && b[t.pos] != '\r' {
					t.pos++
				}
				continue
			}
		case ckSlash:
			if i+1 < len(b) && b[i+1] == '*' {
				if t.pos = skipComment(b, i); t.pos < 0 {
					t.pos, t.kind = len(b), 1
					return
				}
				continue
			}
		case ckWord:
			for t.pos < len(b) && wordChars[b[t.pos]] {
				t.pos++
			}
			t.kind, t.text = 'w', fold(string(b[i:t.pos]))
			return
		case ckDigit:
			for t.pos < len(b) && (wordChars[b[t.pos]] || b[t.pos] == '.') {
				t.pos++
			}
			t.kind, t.text = 'n', string(b[i:t.pos])
			return
		case ckQuote, ckDouble:
			if t.pos = skipQuoted(b, i, c); t.pos < 0 {
				t.pos, t.kind = len(b), 1
				return
			}
			t.kind = 's'
			if c == '"' {
				t.kind = 'q'
			}
			t.text = undouble(b[i+1:t.pos-1], c)
			return
		}
		t.pos++
		t.kind = c
		return
	}
}

// undouble gives the content of a quoted text.
func undouble(b []byte, quote byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		out = append(out, b[i])
		if b[i] == quote {
			i++
		}
	}
	return string(out)
}
