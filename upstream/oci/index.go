package oci

import "encoding/json"

// IndexEntry is one descriptor of an index.
type IndexEntry struct {
	Descriptor
	// Raw is the JSON of the descriptor in the index. EditIndex writes Raw, and ignores changes of
	// Descriptor. Raw is nil for a new entry: EditIndex then writes Descriptor.
	Raw json.RawMessage
}

// EditIndex returns an index with its descriptors replaced by the result of editor. All other
// members of the index stay as they are, even members that this package does not know.
func EditIndex(index []byte, editor func([]IndexEntry) []IndexEntry) ([]byte, error) {
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
	entries, raw = editor(entries), []json.RawMessage{}
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
