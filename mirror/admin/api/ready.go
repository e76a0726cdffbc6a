package api

// Status is the overall result of the checks of /readyz.
type Status string

// The states.
const (
	Ready    Status = "ready"
	Degraded Status = "degraded"  // a check that is not critical fails
	NotReady Status = "not ready" // a critical check fails
)

// Readiness is the answer of /readyz. Its HTTP status is 503 if Status is NotReady, otherwise 200.
type Readiness struct {
	Status Status   `json:"status"`
	Checks []Result `json:"checks"`
}

// Result is the outcome of one check. OK is nil if the outcome is not known.
type Result struct {
	Name     string  `json:"name"`
	OK       *bool   `json:"ok"`
	Critical bool    `json:"critical"`
	Seconds  float64 `json:"seconds"`
	Error    string  `json:"error,omitempty"`
}

// Failed reports whether the check is known to fail.
func (r Result) Failed() bool { return r.OK != nil && !*r.OK }
