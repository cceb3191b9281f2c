package parser

import (
	"fmt"
	"strings"
	"testing"
)

// TestPicks: which subselects are asked for by themselves, and what takes their place.
func TestPicks(t *testing.T) {
	for _, c := range []struct{ sql, picks, text string }{
		{"update t set a = $2 where id = (select id from t where b = $3 limit 1 for update skip locked)",
			"[3] SELECT id FROM t WHERE b = $3 LIMIT 1 FOR UPDATE SKIP LOCKED",
			`UPDATE t SET a = $2 WHERE id = (SELECT pick.c0::int AS "A b", pick.c1::text[] AS b FROM unnest($4::pg_catalog.text[], $5::pg_catalog.text[]) pick(c0, c1))`},
		{"with p as (select * from t order by 1 for update skip locked) delete from t using p where t.id = p.id",
			"[] SELECT * FROM t ORDER BY 1 FOR UPDATE SKIP LOCKED", ""},
		{"insert into t select * from u limit 3", "[] SELECT * FROM u LIMIT 3", ""},
		{"delete from t where id in (select id from u limit 3) and b = array(select c from v tablesample system (1))",
			"[] SELECT id FROM u LIMIT 3; [] SELECT c FROM v TABLESAMPLE system(1)", ""},
		{"with d as (delete from t where id = (select min(id) from t limit 1) returning *) select * from d", "[] SELECT min(id) FROM t LIMIT 1", ""},
		{"insert into t select gen_random_uuid(), a, random() from u where b = 'x'", "[] SELECT gen_random_uuid(), a, random() FROM u WHERE b = 'x'", ""},
		{"insert into t select gen_random_uuid(), '1' from u", "", ""}, // who knows of what type
		{"insert into t values (gen_random_uuid())", "", ""},           // of one row
		{"select * from t limit 3", "", ""},                                                              // it does not write
		{"update t set a = 1 where id in (select id from t order by id limit 3)", "", ""},                // in order
		{"update t set a = 1 where id in (select f(id) from t limit 3)", "", ""},                         // who knows what it does
		{"update t set a = 1 where id in (select nextval('s') from t limit 3)", "", ""},                  // likewise
		{"with c as (select 1 as id) update t set a = 1 where id in (select id from c limit 1)", "", ""}, // of what only the statement has
		{"update t set a = 1 from u, lateral (select u.id from v limit 1) l", "", ""},                    // not by itself
		{"update t set a = 1 where id in (select id from t limit 1 union all select 2 limit 1)", "", ""}, // of two
		{"delete from t where id in (select id from t limit 3); select 1", "", ""},                       // several
	} {
		p := Picks([]byte(c.sql))
		var words []string
		if p != nil {
			for _, q := range p.Picks {
				words = append(words, fmt.Sprintf("%v %s", q.Params, q.SQL))
			}
		}
		if got := strings.Join(words, "; "); got != c.picks {
			t.Errorf("%s\n%s\nwant %s", c.sql, got, c.picks)
		}
		if c.text == "" {
			continue
		}
		got, err := p.Text([]Picked{{Names: []string{"A b", "b"}, Types: []string{"int", "text[]"}, First: p.Params + 1}})
		if err != nil || got != c.text {
			t.Errorf("%s, %v\nwant %s", got, err, c.text)
		}
	}
}
