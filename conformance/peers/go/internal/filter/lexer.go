// Package filter parses and applies the filter language of docs/spec/filter.md.
package filter

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is a filter that does not parse. Position is the character, from 1.
type Error struct {
	Position int
	Message  string
}

func (e *Error) Error() string { return e.Message }

// The terminals of the grammar. Which of them may stand at a place, the parser knows; so the lexer has no tokens of its own.
var (
	wordShape   = regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_-]*`)
	digitsShape = regexp.MustCompile(`\A[0-9]+`)
	stringShape = regexp.MustCompile(`(?s)\A(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')`)
	timeShape   = regexp.MustCompile(`\A[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2}))?`)
	numberShape = regexp.MustCompile(`\A[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?`)
	textShape   = regexp.MustCompile(`\A[A-Za-z0-9_][A-Za-z0-9_./@+-]*`)
	comparators = []string{"<=", ">=", "!=", "<", ">", "="}
)

const (
	notAfterTime   = "_./+@-"
	notAfterNumber = "_./@-"
)

type lexer struct {
	text string
	at   int
}

func (l *lexer) fail(at int, message string) *Error {
	return &Error{Position: utf8.RuneCountInString(l.text[:at]) + 1, Message: message}
}

func (l *lexer) space() {
	for l.at < len(l.text) && strings.IndexByte(" \t\f\r\n", l.text[l.at]) >= 0 {
		l.at++
	}
}

func (l *lexer) end() bool {
	l.space()
	return l.at == len(l.text)
}

// match takes what a terminal matches at the present place. It gives nothing where a character of `not`, a letter or a digit
// follows; the greedy match is the only candidate then, as a shorter one would be followed by a digit, `.` or `e`.
func (l *lexer) match(shape *regexp.Regexp, not string) (string, bool) {
	l.space()
	found := shape.FindString(l.text[l.at:])
	if found == "" {
		return "", false
	}
	if after := l.text[l.at+len(found):]; not != "" && after != "" {
		next := rune(after[0])
		if next < utf8.RuneSelf && (unicode.IsLetter(next) || unicode.IsDigit(next)) || strings.ContainsRune(not, next) {
			return "", false
		}
	}
	l.at += len(found)
	return found, true
}

// symbol takes one of the given texts.
func (l *lexer) symbol(texts ...string) (string, bool) {
	l.space()
	for _, text := range texts {
		if strings.HasPrefix(l.text[l.at:], text) {
			l.at += len(text)
			return text, true
		}
	}
	return "", false
}

// keyword takes a word when it is the given one.
func (l *lexer) keyword(word string) bool {
	l.space()
	if wordShape.FindString(l.text[l.at:]) != word {
		return false
	}
	l.at += len(word)
	return true
}

var escaped = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r'}

// quoted takes a string and resolves its escapes; `\` before any other character means that character.
func (l *lexer) quoted() (string, bool) {
	raw, ok := l.match(stringShape, "")
	if !ok {
		return "", false
	}
	var out strings.Builder
	for i := 1; i < len(raw)-1; i++ {
		if raw[i] != '\\' {
			out.WriteByte(raw[i])
			continue
		}
		i++
		if plain, known := escaped[raw[i]]; known {
			out.WriteByte(plain)
		} else {
			out.WriteByte(raw[i])
		}
	}
	return out.String(), true
}
