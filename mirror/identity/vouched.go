package identity

import (
	"net/http"
	"slices"

	"dray/upstream/oci"
)

// Vouched is a caller whom another member of a fleet has authenticated.
type Vouched struct {
	Principal
	// Granted are the rights that the request needs and that the caller has at the other member.
	Granted []Need
}

// Confirm is [Policy.Authorise] for a caller whom another member of a fleet has authenticated. It
// looks at no credentials. It grants only rights that this Policy grants to the caller. If tokens
// limit the rights of callers, Confirm grants only rights that are also in caller.Granted, because
// only the other member has seen the token.
func (p *Policy) Confirm(r *http.Request, caller Vouched, needs ...Need) (Principal, error) {
	if err := p.mayWriteAll(r, needs); err != nil {
		return Principal{}, err
	}
	a := p.Access
	if a == nil {
		return caller.Principal, p.refusePage(r)
	}
	for _, n := range needs {
		if a.confirms(caller, n) {
			continue
		}
		return caller.Principal, a.refuse(r, oci.ErrDenied.With("user %q may not %s %s, according to the member of the fleet that works on it", caller.Name, n.Action, n.Repository))
	}
	return caller.Principal, nil
}

// confirms reports whether a caller whom another member has authenticated has a right.
func (a *Access) confirms(who Vouched, n Need) bool {
	if _, limited := a.Authenticator.(*Token); limited {
		return slices.Contains(who.Granted, n) && a.allows(who.Principal, n)
	}
	if who.Name == "" {
		return a.anonymously([]Need{n})
	}
	return a.allows(who.Principal, n)
}
