package auth

import (
	"sort"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// prepare is SASLprep (RFC 4013) as PostgreSQL and libpq do it: a password that
// SASLprep does not allow is taken as its bytes, one of ASCII alone stays as it is.
func prepare(password string) string {
	if isASCII(password) {
		return password
	}
	if prepared, ok := saslprep(password); ok {
		return prepared
	}
	return password
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// saslprep maps, normalises and checks. ok is false where the text is not
// UTF-8, has a forbidden character, mixes directions or has nothing left.
func saslprep(text string) (prepared string, ok bool) {
	if !utf8.ValidString(text) {
		return "", false
	}
	mapped := make([]rune, 0, len(text))
	for _, r := range text {
		switch {
		case spaces.has(r):
			mapped = append(mapped, ' ')
		case nothing.has(r):
		default:
			mapped = append(mapped, r)
		}
	}
	prepared = norm.NFKC.String(string(mapped))
	if prepared == "" {
		return "", false
	}
	rtl, ltr := false, false
	for _, r := range prepared {
		if prohibited.has(r) || unassigned.has(r) {
			return "", false
		}
		rtl = rtl || rightToLeft.has(r)
		ltr = ltr || leftToRight.has(r)
	}
	if rtl {
		first, _ := utf8.DecodeRuneInString(prepared)
		last, _ := utf8.DecodeLastRuneInString(prepared)
		if ltr || !rightToLeft.has(first) || !rightToLeft.has(last) {
			return "", false
		}
	}
	return prepared, true
}

// spans are ranges of code points, both ends within, in rising order.
type spans [][2]rune

func (s spans) has(r rune) bool {
	i := sort.Search(len(s), func(i int) bool { return s[i][1] >= r })
	return i < len(s) && s[i][0] <= r
}
