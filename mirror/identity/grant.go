package identity

// Grant is what a Policy decides about a caller and a right, and why.
type Grant struct {
	Allowed bool
	// OnlyHere says that the right depends on where the request comes from: only this machine has it.
	OnlyHere bool
	// Rule is the index of the rule of the Access that grants the right; -1 if no rule decided.
	Rule int
	// Why is a clause that says what decided.
	Why string
}

// Explain returns what Authorise decides about a request of a caller who has shown who they are, or
// has shown nothing if who is the zero value. It looks at no password and no request. So it does
// not know whether the caller exists, or whether a browser or another machine sends the request.
func (p *Policy) Explain(who Principal, n Need) Grant {
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
	case len(a.Rules) == 0 && who.Name == "":
		return no("the listener wants credentials, and there are no rules for clients without any")
	case len(a.Rules) == 0:
		return yes("auth has no rules, so everybody with valid credentials may do everything")
	}
	if rule := a.granting(who, n); rule >= 0 {
		return Grant{Allowed: true, Rule: rule, Why: "a rule grants it"}
	}
	return no("no rule grants it")
}
