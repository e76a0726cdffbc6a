package oci

import "encoding/json"

// IndexEntry is one descriptor of an index.
type IndexEntry struct {
	Descriptor
	// Raw is the descriptor as it stands in the index; nil for one that is new.
	Raw json.RawMessage
}

// EditIndex returns an index with the descriptors that edit makes of its own. All else in it stays
// as it is, what this package does not know included.
func EditIndex(index []byte, edit func([]IndexEntry) []IndexEntry) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(index, &members); err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(members["manifests"], &raw); err != nil {
		return nil, err
	}
	entries := make([]IndexEntry, len(raw))
	for i := range raw {
		entries[i].Raw = raw[i]
		if err := json.Unmarshal(raw[i], &entries[i].Descriptor); err != nil {
			return nil, err
		}
	}
	entries, raw = edit(entries), []json.RawMessage{}
	for _, e := range entries {
		if e.Raw == nil {
			var err error
			if e.Raw, err = json.Marshal(e.Descriptor); err != nil {
				return nil, err
			}
		}
		raw = append(raw, e.Raw)
	}
	var err error
	if members["manifests"], err = json.Marshal(raw); err != nil {
		return nil, err
	}
	return json.Marshal(members)
}
