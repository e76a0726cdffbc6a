package api

// Stats are the savings since dray was started.
type Stats struct {
	// SentBytes counts the bytes of manifests and blobs sent to clients.
	SentBytes int64 `json:"sent_bytes"`
	// FetchedBytes counts the bytes of blobs fetched from upstreams, including prefetched blobs and
	// those fetched twice.
	FetchedBytes int64 `json:"fetched_bytes"`
	// SavedBytes is SentBytes less FetchedBytes: the bytes that upstreams did not have to send. It
	// is negative while more was prefetched than requested.
	SavedBytes int64 `json:"saved_bytes"`
	// SavedRatio is SavedBytes divided by SentBytes; 0 if nothing was sent.
	SavedRatio float64 `json:"saved_ratio"`
	// ReceivedBytes counts the bytes that clients uploaded.
	ReceivedBytes int64 `json:"received_bytes"`
	// Requests counts the requests of clients for manifests and blobs.
	Requests int64 `json:"requests"`
	// Opens counts the readers of blobs by the source of their bytes: memory, disk, origin (a fetch
	// for this reader), flight (a fetch that was under way for another reader; printed as
	// "shared"), direct (passed through uncached). A prefetch is not a reader.
	Opens map[string]int64 `json:"opens"`
	// Upstreams counts the bytes sent to clients, by upstream and source.
	Upstreams map[string]map[string]int64 `json:"upstreams"`
}
