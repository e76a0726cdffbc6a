package api

import "time"

// History has counts over time.
type History struct {
	// Step is the length of a point in seconds.
	Step float64 `json:"step"`
	// Points are in the order of time, without gaps.
	Points []HistoryPoint `json:"points"`
}

// HistoryPoint has the counts of the Step that began at At.
type HistoryPoint struct {
	At time.Time `json:"at"`
	// Seconds is the part of the Step for which there are samples. 0 means that nothing is known, for
	// example because dray did not run.
	Seconds float64 `json:"seconds"`
	// Requests counts the GET requests of clients for manifests and blobs.
	Requests int64 `json:"requests"`
	// Hits counts the readers of blobs whose bytes were held, in memory or on disk. Misses counts the
	// other readers of blobs.
	Hits   int64 `json:"hits"`
	Misses int64 `json:"misses"`
	// Sent counts the bytes of manifests, blobs and lists that were sent to clients. The keys are the
	// sources of the bytes, in the words of X-Cache, or "other". A source of no bytes is missing.
	Sent map[string]int64 `json:"sent"`
	// Fetched counts the bytes of all answers of upstreams, and Uploaded the bytes that clients
	// uploaded.
	Fetched  int64 `json:"fetched"`
	Uploaded int64 `json:"uploaded"`
	// Stored is the number of bytes in the disk cache at the last sample of the Step.
	Stored int64 `json:"stored"`
	// Fetches, Pulls and Pushes are the largest numbers of fetches, pulls and pushes that were under
	// way at any sample.
	Fetches int64 `json:"fetches"`
	Pulls   int64 `json:"pulls"`
	Pushes  int64 `json:"pushes"`
}
