package conf

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Pattern compiles a regular expression as the original's lists mean it: case
// is ignored, both ends are anchored, a dot matches a newline. The anchors are
// added to the text as the original does, so "a|b" means "^a|b$".
func Pattern(text string) (*regexp.Regexp, error) {
	if !strings.HasPrefix(text, "^") {
		text = "^" + text
	}
	if !strings.HasSuffix(text, "$") {
		text += "$"
	}
	re, err := regexp.Compile("(?is)" + text)
	if err != nil {
		return nil, fmt.Errorf("invalid regular expression %q: %w", text, err)
	}
	return re, nil
}

func checkPattern(name, item string) *Error {
	if _, err := Pattern(item); err != nil {
		return &Error{Text: fmt.Sprintf("unable to add regex pattern for %q, invalid pattern: %q", name, item), Detail: err.Error(), Err: err}
	}
	return nil
}

// RedirectTarget is the kind of node a redirect prefers.
type RedirectTarget int

// Targets of a redirect.
const (
	ToNode RedirectTarget = iota
	ToPrimary
	ToStandby
)

// Redirect is one rule of a redirect preference list.
type Redirect struct {
	Name   *regexp.Regexp // of a user, database or application
	Target RedirectTarget
	Node   int     // for ToNode
	Weight float64 // probability of following the rule, 0 to 1
}

// RedirectList is a redirect preference list.
type RedirectList struct {
	Text  string // as written
	Rules []Redirect
}

// Find returns the first rule for a name.
func (l RedirectList) Find(name string) (Redirect, bool) {
	i := slices.IndexFunc(l.Rules, func(r Redirect) bool { return r.Name.MatchString(name) })
	if i < 0 {
		return Redirect{}, false
	}
	return l.Rules[i], true
}

const redirectHint = "Rules are regex:node or regex:node(weight), separated by commas; node is primary, standby or 0 to 127, weight is 0 to 1."

// parseRedirects reads "regex:node(weight),..."; what is wrong is a detail as the original words it.
func parseRedirects(value, what string) (list RedirectList, detail string) {
	list.Text = value
	for _, item := range splitList(value, ',') {
		colon := strings.LastIndexByte(item, ':')
		if colon < 0 {
			return list, fmt.Sprintf("wrong redirect %s node spec: %q", what, item)
		}
		pattern, node := item[:colon], item[colon+1:]
		rule := Redirect{Weight: 1}
		if open := strings.IndexByte(node, '('); open >= 0 {
			weight, closed := strings.CutSuffix(node[open+1:], ")")
			f, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
			if !closed || err != nil || !(f >= 0 && f <= 1) {
				return list, fmt.Sprintf("wrong redirect %s weight: %q", what, node[open:])
			}
			node, rule.Weight = node[:open], f
		}
		switch node = strings.TrimSpace(node); strings.ToLower(node) {
		case "primary":
			rule.Target = ToPrimary
		case "standby":
			rule.Target = ToStandby
		default:
			n, err := strconv.ParseUint(node, 10, 8)
			if err != nil || n >= MaxBackends {
				return list, fmt.Sprintf("wrong redirect %s node spec: %q", what, node)
			}
			rule.Node = int(n)
		}
		re, err := Pattern(strings.TrimSpace(pattern))
		if err != nil {
			return list, fmt.Sprintf("wrong redirect %sname regular expression: %q", what, pattern)
		}
		rule.Name = re
		list.Rules = append(list.Rules, rule)
	}
	return list, ""
}

type redirectCell struct{ place[RedirectList] }

func (c redirectCell) parse(name, value string) *Error {
	what := map[string]string{
		"database_redirect_preference_list": "db",
		"app_name_redirect_preference_list": "app",
		"user_redirect_preference_list":     "user",
	}[name]
	l, detail := parseRedirects(value, what)
	if detail != "" {
		return badKey(name, detail, redirectHint)
	}
	*c.p = l
	return nil
}

func (c redirectCell) show() string { return c.p.Text }
func (c redirectCell) raw() string  { return orNull(c.p.Text) }

// orNull is how the original's SHOW POOL_STATUS prints an unset list.
func orNull(s string) string {
	if s == "" {
		return "(null)"
	}
	return s
}

// Relation is one pair of dml_adaptive_object_relationship_list: after a write
// to, or a call of, Object, reads of Dependent stay on the primary.
type Relation struct {
	Object    string
	Function  bool // Object was written with (): it is a function
	Dependent string
}

// RelationList is dml_adaptive_object_relationship_list.
type RelationList struct {
	Text  string // as written
	Pairs []Relation
}

type relationCell struct{ place[RelationList] }

func (c relationCell) parse(name, value string) *Error {
	l := RelationList{Text: value}
	for _, item := range splitList(value, ',') {
		object, dependent, ok := strings.Cut(item, ":")
		object, dependent = strings.TrimSpace(object), strings.TrimSpace(dependent)
		object, function := strings.CutSuffix(object, "()")
		dependent = strings.TrimSuffix(dependent, "()")
		if !ok || object == "" || dependent == "" {
			return badKey(name, fmt.Sprintf("wrong object relationship: %q", item),
				"Pairs are object:dependent, separated by commas; a function's name ends in ().")
		}
		l.Pairs = append(l.Pairs, Relation{Object: object, Function: function, Dependent: dependent})
	}
	*c.p = l
	return nil
}

func (c relationCell) show() string { return c.p.Text }
func (c relationCell) raw() string  { return orNull(c.p.Text) }

// destinationCell is log_destination.
type destinationCell struct{ place[[]string] }

func (c destinationCell) parse(name, value string) *Error {
	const hint = "Available values: stderr, syslog, or both separated by a comma."
	items := splitList(value, ',')
	if len(items) == 0 {
		return &Error{Text: fmt.Sprintf("invalid value %q for %s", value, name), Hint: hint}
	}
	for _, item := range items {
		if item != "stderr" && item != "syslog" {
			return &Error{Text: fmt.Sprintf("invalid configuration for %q", name), Detail: "unknown destination :" + item, Hint: hint}
		}
	}
	*c.p = items
	return nil
}

func (c destinationCell) show() string { return strings.Join(*c.p, ",") }
func (c destinationCell) raw() string  { return c.show() }
