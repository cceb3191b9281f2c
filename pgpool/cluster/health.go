package cluster

import (
	"strconv"
	"time"
)

// Health is the record of a node's health checks, for SHOW
// POOL_HEALTH_CHECK_STATS and PCP. The monitor writes it, others read copies.
type Health struct {
	Total, Success, Fail, Skip, Retry uint64
	MaxRetry                          uint64
	MaxDuration, MinDuration          time.Duration
	SumDuration                       time.Duration // of all checks that were not skipped

	Last, LastSuccess, LastSkip, LastFail time.Time
}

// Checked returns the record after one more check, with its retries.
func (h Health) Checked(ok bool, retries int, took time.Duration, now time.Time) Health {
	ran := h.Total - h.Skip
	h.Total++
	h.Last = now
	if ok {
		h.Success++
		h.LastSuccess = now
	} else {
		h.Fail++
		h.LastFail = now
	}
	h.Retry += uint64(retries)
	h.MaxRetry = max(h.MaxRetry, uint64(retries))
	h.SumDuration += took
	h.MaxDuration = max(h.MaxDuration, took)
	if ran == 0 || took < h.MinDuration {
		h.MinDuration = took
	}
	return h
}

// Skipped returns the record after a check that was not made because the node
// is detached.
func (h Health) Skipped(now time.Time) Health {
	h.Total++
	h.Skip++
	h.Last, h.LastSkip = now, now
	return h
}

// Columns is the record as shown, from total_count to
// last_failed_health_check. Where nothing was checked yet the averages are 0;
// the original shows -nan, which no script can want.
func (h Health) Columns() []string {
	average := func(sum float64) string {
		if ran := h.Total - h.Skip; ran > 0 {
			sum /= float64(ran)
		}
		return strconv.FormatFloat(sum, 'f', 6, 64)
	}
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	when := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Local().Format(time.DateTime)
	}
	return []string{
		count(h.Total), count(h.Success), count(h.Fail), count(h.Skip), count(h.Retry),
		average(float64(h.Retry)), count(h.MaxRetry),
		ms(h.MaxDuration), ms(h.MinDuration), average(float64(h.SumDuration.Milliseconds())),
		when(h.Last), when(h.LastSuccess), when(h.LastSkip), when(h.LastFail),
	}
}
