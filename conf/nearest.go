package conf

import "strings"

// nearest finds the known parameter most like name, "" if none is close.
func nearest(name string) string {
	stem := strings.TrimRight(name, "0123456789")
	if len(stem) > 2*len("allow_multiple_failover_requests_from_node") {
		return ""
	}
	number := name[len(stem):]
	best, bestDistance := "", 1+max(2, len(stem)/4)
	consider := func(candidate, shown string) {
		if d := distance(strings.ToLower(stem), strings.ToLower(candidate)); d < bestDistance {
			best, bestDistance = shown, d
		}
	}
	for i := range table {
		s := &table[i]
		switch {
		case s.numbered() && number == "":
			consider(s.Name, s.title(0))
		case s.Family != Single:
			consider(s.Name, s.Name+number)
		default:
			consider(s.Name, s.Name)
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with
// their neighbour that makes a into b.
func distance(a, b string) int {
	before := make([]int, len(b)+1) // row i-2
	above := make([]int, len(b)+1)  // row i-1
	row := make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}
