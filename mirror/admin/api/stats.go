package api

// Stats is what dray has saved since it was started.
type Stats struct {
	// Bytes of manifests and blobs sent to clients.
	SentBytes int64 `json:"sent_bytes"`
	// Bytes of blobs got from upstreams, those fetched ahead of clients and those fetched twice
	// included.
	FetchedBytes int64 `json:"fetched_bytes"`
	// SentBytes less FetchedBytes: what the upstreams did not have to send. It is negative while
	// more was fetched ahead than was asked for.
	SavedBytes int64 `json:"saved_bytes"`
	// SavedBytes by SentBytes; 0 where nothing was sent.
	SavedRatio float64 `json:"saved_ratio"`
	// Bytes that clients uploaded.
	ReceivedBytes int64 `json:"received_bytes"`
	// Requests of clients for manifests and blobs.
	Requests int64 `json:"requests"`
	// Readers of blobs by where their bytes came from: memory, disk, origin (a fetch for them),
	// flight (a fetch that was under way for another reader; printed as "shared"), direct (passed
	// through uncached). What was fetched ahead of everybody has no reader.
	Opens map[string]int64 `json:"opens"`
	// Bytes sent to clients, by upstream and by where they came from.
	Upstreams map[string]map[string]int64 `json:"upstreams"`
}
