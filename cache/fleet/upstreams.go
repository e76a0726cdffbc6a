package fleet

import "encoding/json"

// Upstream is what members know of each other's upstreams.
type Upstream struct {
	// Name is that in the configuration of the member.
	Name string `json:"name"`
	// Identity is the same for members whose upstreams are the same registry with the same rights. It
	// has nothing that is secret.
	Identity string `json:"identity"`
	// Quota is what the registry has stated of its quota of pulls to the member, or nil.
	Quota *Quota `json:"quota,omitempty"`
}

// Quota is a quota of pulls, as a registry states it.
type Quota struct {
	Limit     int `json:"limit"`
	Remaining int `json:"remaining"`
	// Window is the time in which the registry counts pulls, in seconds; 0 if it is not known.
	Window int64 `json:"window,omitempty"`
	// Source is the address or the account whose pulls the registry counts; it may be empty.
	Source string `json:"source,omitempty"`
	// Age is how long ago the registry stated this, in seconds. No member compares the clock of
	// another one.
	Age int64 `json:"age"`
}

// Upstreams is a list of upstreams as one text, so that members can be compared.
type Upstreams string

// NewUpstreams returns the text for a list.
func NewUpstreams(all []Upstream) Upstreams {
	if len(all) == 0 {
		return ""
	}
	text, _ := json.Marshal(all) // never fails for texts and numbers
	return Upstreams(text)
}

// All returns the list. It is empty if the text is none of NewUpstreams.
func (u Upstreams) All() (all []Upstream) {
	if json.Unmarshal([]byte(u), &all) != nil {
		return nil
	}
	return all
}

// Drift is an upstream of this member that is another registry, or has other rights, at other
// members.
type Drift struct {
	// Upstream is the name.
	Upstream string
	// Members are those where it differs, in the order of their IDs.
	Members []Member
}

// DriftOf returns the upstreams of the member self that have another identity at another one, in
// the order of self. Upstreams that only one of them has are no drift.
func DriftOf(self string, members []Member) (all []Drift) {
	at := map[string]int{} // in own, by name
	var own []Upstream
	for _, m := range members {
		if m.ID == self {
			own = m.Upstreams.All()
		}
	}
	for i, u := range own {
		at[u.Name] = i
	}
	differ := make([][]Member, len(own))
	for _, m := range members {
		for _, u := range m.Upstreams.All() {
			if i, ok := at[u.Name]; ok && own[i].Identity != u.Identity {
				differ[i] = append(differ[i], m)
			}
		}
	}
	for i, members := range differ {
		if len(members) > 0 {
			all = append(all, Drift{own[i].Name, members})
		}
	}
	return all
}
