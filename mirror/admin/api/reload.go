package api

// ReloadRequest asks for a reload of the configuration. It has no parameters.
type ReloadRequest struct{}

// Reloaded is the result of a reload of the configuration. Changed and Pending list keys of the
// configuration, with the names of entries in brackets, as in upstreams[hub].hosts. If an entry was
// added or removed, they list only the entry itself, as in upstreams[hub].
type Reloaded struct {
	// Changed are the keys whose new values are now in force.
	Changed []string `json:"changed"`
	// Pending are the keys whose values in the file differ from the values in force. The new values
	// take effect at the next start.
	Pending []string `json:"pending"`
	// Notices warn about settings that are valid but seldom intended. The list leaves out the
	// notices that the configuration before the reload also has.
	Notices []string `json:"notices,omitempty"`
}
