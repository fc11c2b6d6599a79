package filter

import (
	"fmt"
)

// Bounds of a filter beside its length.
const (
	MaxComparisons = 100
	MaxDepth       = 32
)

type valueKind int

const (
	quotedValue valueKind = iota
	numberValue
	timeValue
	textValue
	starValue
)

type value struct {
	kind     valueKind
	text     string
	position int
}

// Filter is a parsed filter.
type Filter struct {
	root  node
	state bool
}

// NamesState says whether the filter has a condition on `state`; without one a search finds ACTIVE memories only.
func (f *Filter) NamesState() bool { return f.state }

type parser struct {
	lexer
	comparisons int
	depth       int
	state       bool
}

// Parse reads a filter; the empty one passes everything.
func Parse(text string) (*Filter, *Error) {
	p := &parser{lexer: lexer{text: text}}
	if p.end() {
		return &Filter{root: all{}}, nil
	}
	root, err := p.expression()
	if err != nil {
		return nil, err
	}
	if !p.end() {
		return nil, p.fail(p.at, "unexpected character")
	}
	return &Filter{root: root, state: p.state}, nil
}

// expression: sequence ("AND" sequence)*, where a sequence is one or more factors. Both mean that all of them hold.
func (p *parser) expression() (node, *Error) {
	var parts all
	for {
		part, err := p.factor()
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
		if p.end() || p.text[p.at] == ')' {
			return parts, nil
		}
		p.keyword("AND")
	}
}

// factor: term ("OR" term)*.
func (p *parser) factor() (node, *Error) {
	var parts anyOf
	for {
		part, err := p.term()
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
		if !p.keyword("OR") {
			return parts, nil
		}
	}
}

// term: simple | ("NOT" | "-") simple.
func (p *parser) term() (node, *Error) {
	p.space()
	start := p.at
	negated := p.keyword("NOT")
	if !negated {
		_, negated = p.symbol("-")
	}
	if !negated {
		return p.simple()
	}
	leave, err := p.deeper(start)
	if err != nil {
		return nil, err
	}
	defer leave()
	inner, err := p.simple()
	return not{inner}, err
}

// simple: restriction | "(" expression ")".
func (p *parser) simple() (node, *Error) {
	p.space()
	start := p.at
	if _, nested := p.symbol("("); !nested {
		return p.restriction()
	}
	leave, err := p.deeper(start)
	if err != nil {
		return nil, err
	}
	defer leave()
	inner, err := p.expression()
	if err != nil {
		return nil, err
	}
	if _, closed := p.symbol(")"); !closed {
		return nil, p.fail(p.at, "a closing parenthesis is missing")
	}
	return inner, nil
}

func (p *parser) deeper(at int) (func(), *Error) {
	if p.depth++; p.depth > MaxDepth {
		return nil, p.fail(at, fmt.Sprintf("more than %d levels of parentheses and NOT", MaxDepth))
	}
	return func() { p.depth-- }, nil
}

// restriction: path COMPARATOR value | path HAS (value | STAR).
func (p *parser) restriction() (node, *Error) {
	p.space()
	start := p.at
	path, err := p.path()
	if err != nil {
		return nil, err
	}
	if p.comparisons++; p.comparisons > MaxComparisons {
		return nil, p.fail(start, fmt.Sprintf("more than %d comparisons", MaxComparisons))
	}
	operator, ok := p.symbol(append(comparators, ":")...)
	if !ok {
		return nil, p.fail(p.at, "an operator is missing")
	}
	operand, err := p.value(operator == ":")
	if err != nil {
		return nil, err
	}
	p.state = p.state || path[0] == "state"
	compiled, problem := compile(path, operator, operand)
	if problem != nil {
		at := start
		if problem.onValue {
			at = operand.position
		}
		return nil, p.fail(at, problem.message)
	}
	return compiled, nil
}

// path: WORD ("." (WORD | STRING | DIGITS))*.
func (p *parser) path() ([]string, *Error) {
	first, ok := p.match(wordShape, "")
	if !ok {
		return nil, p.fail(p.at, "the name of a field is missing")
	}
	path := []string{first}
	for {
		if _, dot := p.symbol("."); !dot {
			return path, nil
		}
		key, ok := p.match(digitsShape, "")
		if !ok {
			key, ok = p.match(wordShape, "")
		}
		if !ok {
			key, ok = p.quoted()
		}
		if !ok {
			return nil, p.fail(p.at, "a key is missing")
		}
		path = append(path, key)
	}
}

// value: STRING | NUMBER | TIME | TEXT, and STAR after HAS. TIME goes before NUMBER, NUMBER before TEXT.
func (p *parser) value(star bool) (value, *Error) {
	p.space()
	start := p.at
	if star {
		if _, ok := p.symbol("*"); ok {
			return value{starValue, "*", start}, nil
		}
	}
	if text, ok := p.quoted(); ok {
		return value{quotedValue, text, start}, nil
	}
	if text, ok := p.match(timeShape, notAfterTime); ok {
		return value{timeValue, text, start}, nil
	}
	if text, ok := p.match(numberShape, notAfterNumber); ok {
		return value{numberValue, text, start}, nil
	}
	if text, ok := p.match(textShape, ""); ok {
		return value{textValue, text, start}, nil
	}
	return value{}, p.fail(start, "a value is missing")
}
