package identity

import (
	"net/http"
	"slices"

	"dray/mirror/pattern"
	"dray/upstream/oci"
)

// Action is an action that rules grant.
type Action string

// The actions, named as in the registry token specification.
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
)

// The actions of operators on the admin listener. They concern no repository.
const (
	// View allows an operator to see the state of dray.
	View Action = "view"
	// Operate allows an operator to change that state, and to take profiles. It includes View.
	Operate Action = "operate"
)

// ofOperators reports whether the action is an action on the admin listener.
func (a Action) ofOperators() bool { return a == View || a == Operate }

// Rule grants actions on repositories.
type Rule struct {
	// Users are exact names; "*" means every authenticated user.
	Users []string
	// Anonymous makes the rule apply to all clients, with or without credentials.
	Anonymous bool
	// Repositories are patterns for Need.Repository. "*" matches any characters, including slashes.
	// They do not matter for View and Operate.
	Repositories []string
	Actions      []Action
}

// Access authenticates callers and grants rights to them.
type Access struct {
	Authenticator Authenticator
	// Rules grant actions. Without rules, every authenticated caller may pull, push and delete
	// everything.
	Rules []Rule
	// Failed is called with each request that the Authenticator or the rules refuse, and with the
	// error. It may be nil.
	Failed func(*http.Request, error)
}

// allows reports whether the caller has a right.
func (a *Access) allows(p Principal, n Need) bool {
	return len(a.Rules) == 0 && !n.Action.ofOperators() || a.granting(p, n) >= 0
}

// granting returns the index of the first rule that grants a right to the caller, or -1.
func (a *Access) granting(p Principal, n Need) int {
	return slices.IndexFunc(a.Rules, func(r Rule) bool { return r.grants(p, n) })
}

func (r Rule) grants(p Principal, n Need) bool {
	who := r.Anonymous || p.Name != "" && (slices.Contains(r.Users, p.Name) || slices.Contains(r.Users, "*"))
	if n.Action.ofOperators() {
		return who && (slices.Contains(r.Actions, n.Action) || slices.Contains(r.Actions, Operate))
	}
	return who && slices.Contains(r.Actions, n.Action) && pattern.Any(r.Repositories, n.Repository)
}

// anonymously reports whether rules grant all needs to anonymous callers. It reports false if there
// are no needs or no rules.
func (a *Access) anonymously(needs []Need) bool {
	return len(needs) > 0 && len(a.Rules) > 0 && !slices.ContainsFunc(needs, func(n Need) bool { return !a.allows(Principal{}, n) })
}

// authorise authenticates and returns the caller of a request. It returns an error if the
// credentials are missing or wrong. If the caller lacks one of the rights, it returns both the
// caller and an error.
func (a *Access) authorise(r *http.Request, needs []Need) (Principal, error) {
	who, err := a.authenticated(r, needs)
	if err != nil {
		return who, a.refuse(r, err)
	}
	return who, nil
}

// refuse calls Failed with the request and err, and returns err.
func (a *Access) refuse(r *http.Request, err error) error {
	if a.Failed != nil {
		a.Failed(r, err)
	}
	return err
}

// authenticated does what authorise does, but does not call Failed.
func (a *Access) authenticated(r *http.Request, needs []Need) (Principal, error) {
	who, err := a.Authenticator.Authenticate(r, needs)
	if err != nil {
		return Principal{}, err
	}
	for _, n := range needs {
		switch {
		case a.allows(who, n):
		case n.Action.ofOperators():
			return who, oci.ErrDenied.With("user %q may not %s: no rule grants that action", who.Name, n.Action)
		default:
			return who, oci.ErrDenied.With("user %q may not %s %s: no rule grants that action there", who.Name, n.Action, n.Repository)
		}
	}
	return who, nil
}

// open reports whether some rule allows anonymous access. If so, a client without credentials must
// not be refused at the base of the API, /v2/.
func (a *Access) open() bool {
	return slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.Anonymous })
}
