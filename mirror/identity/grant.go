package identity

// Grant is the decision of a Policy about one right of a caller, and the reason for it.
type Grant struct {
	Allowed bool
	// OnlyHere says that only requests from this machine have the right.
	OnlyHere bool
	// Rule is the index in Access.Rules of the rule that grants the right; -1 if no rule decided.
	Rule int
	// Why is a clause that gives the reason for the decision.
	Why string
}

// Explain returns the decision that Authorise makes about a caller with valid credentials or, for
// the zero Principal, about a caller without credentials. Explain sees no password and no request.
// So it does not know whether the caller exists, or whether a browser or another machine sends the
// request.
func (p *Policy) Explain(caller Principal, n Need) Grant {
	no := func(why string) Grant { return Grant{Rule: -1, Why: why} }
	yes := func(why string) Grant { return Grant{Allowed: true, Rule: -1, Why: why} }
	a := p.Access
	switch {
	case n.Action != Pull && p.Role != RoleRegistry:
		return no("the listener is a pull mirror, which takes no pushes and deletions")
	case a == nil && n.Action == Pull:
		return yes("the listener has no auth, so everybody who reaches it may pull")
	case a == nil && n.Action == Push && p.AllowAnonymousPush:
		return yes("allow_anonymous_push of the listener is set")
	case a == nil:
		g := yes("without auth, only clients on the machine of dray may do that")
		g.OnlyHere = true
		return g
	case len(a.Rules) == 0 && caller.Name == "":
		return no("the listener wants credentials, and there are no rules for clients without any")
	case len(a.Rules) == 0:
		return yes("auth has no rules, so everybody with valid credentials may do everything")
	}
	if rule := a.granting(caller, n); rule >= 0 {
		return Grant{Allowed: true, Rule: rule, Why: "a rule grants it"}
	}
	return no("no rule grants it")
}
