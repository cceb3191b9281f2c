// Package route answers one question: which node must see this statement, and
// why?
//
// It owns no socket, clock or random number. What it may consider arrives in
// Input: the parser's verdict on the text, the catalog's facts about its names,
// the session's state, the cluster's snapshot, the operator's rules. What it
// decided, and why, leaves in Decision. Session is the state routing needs to
// remember, and moves by what is told of each statement's fate.
//
// It never sends anything: a statement runs on one node, and Decision.Everywhere
// says that its effect must be brought to each node the session reads from. To
// teach it a new rule, add a case to Route, a reason to reason.go and cases to
// testdata/routing.
package route
