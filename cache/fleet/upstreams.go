package fleet

import "encoding/json"

// Upstream describes an upstream of one member to the other members.
type Upstream struct {
	// Name is the name in the configuration of the member.
	Name string `json:"name"`
	// Identity is the same for members whose upstreams are the same registry with the same rights. It
	// contains no secret.
	Identity string `json:"identity"`
	// Quota is the quota of pulls that the registry has stated to the member, or nil if there is none.
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
	// Age is how many seconds ago the registry stated the quota. So members need not compare clocks.
	Age int64 `json:"age"`
}

// Upstreams is a list of upstreams as one text. [Member] has a field of this type. With a slice in
// the field, the operator == could not compare two Members.
type Upstreams string

// NewUpstreams returns the text for a list.
func NewUpstreams(all []Upstream) Upstreams {
	if len(all) == 0 {
		return ""
	}
	text, _ := json.Marshal(all) // never fails for texts and numbers
	return Upstreams(text)
}

// All returns the list. It is empty if the text is not a valid list.
func (u Upstreams) All() (all []Upstream) {
	if json.Unmarshal([]byte(u), &all) != nil {
		return nil
	}
	return all
}

// Drift is an upstream whose registry or rights differ between this member and other members.
type Drift struct {
	// Upstream is the name of the upstream.
	Upstream string
	// Members are the other members whose upstream of this name differs, sorted by ID.
	Members []Member
}

// DriftOf compares the upstreams of one member, whose ID is id, with those of the other members. It
// returns each upstream of this member whose identity differs at another member, in the order of
// this member's list. If another member lacks an upstream of this member, that is no drift.
func DriftOf(id string, members []Member) (all []Drift) {
	at := map[string]int{} // indexes in upstreams, by name
	var upstreams []Upstream
	for _, m := range members {
		if m.ID == id {
			upstreams = m.Upstreams.All()
		}
	}
	for i, u := range upstreams {
		at[u.Name] = i
	}
	differ := make([][]Member, len(upstreams))
	for _, m := range members {
		for _, u := range m.Upstreams.All() {
			if i, ok := at[u.Name]; ok && upstreams[i].Identity != u.Identity {
				differ[i] = append(differ[i], m)
			}
		}
	}
	for i, members := range differ {
		if len(members) > 0 {
			all = append(all, Drift{upstreams[i].Name, members})
		}
	}
	return all
}
