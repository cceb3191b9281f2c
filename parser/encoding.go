package parser

// Encoding tells how the bytes of characters other than ASCII's are to be read.
type Encoding uint8

// Encodings: of most, such bytes are all above 0x7f.
const (
	Plain Encoding = iota
	Kana           // SJIS: two bytes, or one of 0xa1 to 0xdf
	Wide           // BIG5, GBK, UHC, JOHAB: two bytes
	Four           // GB18030: two bytes, or four
)

// EncodingOf is that of a name as client_encoding has it.
func EncodingOf(name string) Encoding {
	b := make([]byte, 0, len(name))
	for i := range len(name) {
		if c := lower(name[i]); 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			b = append(b, c)
		}
	}
	switch string(b) {
	case "sjis", "mskanji", "shiftjis", "win932", "windows932", "shiftjis2004":
		return Kana
	case "big5", "win950", "windows950", "gbk", "win936", "windows936", "uhc", "win949", "windows949", "johab":
		return Wide
	case "gb18030":
		return Four
	}
	return Plain
}

// mask is a text in which bytes that are part of a character, but look like ASCII, do
// not look like that. What is plain is the text itself.
func (e Encoding) mask(sql []byte) []byte {
	if e == Plain || ascii(sql) {
		return sql
	}
	b := append([]byte(nil), sql...)
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c < 0x80 || e == Kana && 0xa1 <= c && c <= 0xdf {
			continue
		}
		n := 1
		if e == Four && i+1 < len(b) && '0' <= b[i+1] && b[i+1] <= '9' {
			n = 3
		}
		for ; n > 0 && i+1 < len(b); n-- {
			i++
			b[i] |= 0x80
		}
	}
	return b
}
