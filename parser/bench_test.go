package parser

import (
	"fmt"
	"strings"
	"testing"
)

const benchSelect = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345"

const benchReport = `SELECT c.region, date_trunc('month', o.placed) AS month, count(*) AS orders, sum(l.quantity * l.price) AS revenue,
  rank() OVER (PARTITION BY c.region ORDER BY sum(l.quantity * l.price) DESC) AS rank
FROM customers c JOIN orders o ON o.customer_id = c.id JOIN lines l ON l.order_id = o.id LEFT JOIN refunds r ON r.order_id = o.id
WHERE o.placed >= '2026-01-01' AND o.placed < '2027-01-01' AND c.region IN ('n', 's', 'e', 'w') AND r.id IS NULL
  AND EXISTS (SELECT 1 FROM shipments s WHERE s.order_id = o.id AND s.state = 'delivered')
GROUP BY c.region, date_trunc('month', o.placed) HAVING sum(l.quantity) > 100 ORDER BY month, rank LIMIT 50`

// A text seen before.
func BenchmarkHit(b *testing.B) {
	for name, text := range map[string]string{"select": benchSelect, "report": benchReport} {
		b.Run(name, func(b *testing.B) {
			p := New(Options{})
			sql := []byte(text)
			for range 3 {
				p.Classify(sql)
			}
			b.ReportAllocs()
			for b.Loop() {
				p.Classify(sql)
			}
		})
	}
}

func BenchmarkHitParallel(b *testing.B) {
	p := New(Options{})
	sql := []byte(benchSelect)
	for range 3 {
		p.Classify(sql)
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.Classify(sql)
		}
	})
}

// A statement whose literals are new each time.
func BenchmarkLiterals(b *testing.B) {
	for name, text := range map[string]string{
		"select": "SELECT abalance FROM pgbench_accounts WHERE aid = %d",
		"insert": "INSERT INTO log (at, who, what) VALUES ('2026-01-01 00:00:00', 'user-%d', E'it\\'s \\n done')",
		"in":     "SELECT * FROM t WHERE id IN (1, 2, 3, 4, 5, 6, 7, 8, 9, %d)",
		"report": strings.ReplaceAll(strings.ReplaceAll(benchReport, "%", "%%"), "100 ", "%d "),
	} {
		b.Run(name, func(b *testing.B) {
			p := New(Options{})
			texts := make([][]byte, 100000)
			for i := range texts {
				texts[i] = fmt.Appendf(nil, text, 1000000+i)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				p.Classify(texts[i%len(texts)])
				i++
			}
		})
	}
}

// A bulk INSERT of some 100 KiB.
func BenchmarkBulk(b *testing.B) {
	p := New(Options{})
	rows := strings.Repeat(", (1, 'some text of some length', 3.14)", 2600)
	b.SetBytes(int64(len(rows)))
	i := 0
	for b.Loop() {
		p.Classify(fmt.Appendf(nil, "INSERT INTO log (a, b, c) VALUES (%d, 'x', 1.5)%s", i, rows))
		i++
	}
}

// A text never seen: the full parse.
func BenchmarkFresh(b *testing.B) {
	for name, text := range map[string]string{"select": benchSelect, "report": benchReport} {
		b.Run(name, func(b *testing.B) {
			sql := []byte(text)
			s := &scan{}
			s.run(sql)
			b.ReportAllocs()
			for b.Loop() {
				fresh(sql, s)
			}
		})
	}
}
