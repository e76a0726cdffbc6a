package api

import "time"

// Stats are the savings since dray was started.
type Stats struct {
	// Started is when dray was started; zero if the system does not report it.
	Started time.Time `json:"started,omitzero"`
	// SentBytes counts the bytes of manifests, blobs and lists sent to clients.
	SentBytes int64 `json:"sent_bytes"`
	// FetchedBytes counts the bytes of all answers of upstreams, as they arrive. It includes bytes
	// that were not stored, were prefetched, or were fetched twice.
	FetchedBytes int64 `json:"fetched_bytes"`
	// Fetched has the FetchedBytes of each upstream.
	Fetched map[string]int64 `json:"fetched"`
	// SavedBytes is SentBytes less FetchedBytes: the bytes that upstreams did not have to send. It is
	// negative while dray has fetched more bytes than it has sent, for example by prefetching.
	SavedBytes int64 `json:"saved_bytes"`
	// SavedRatio is SavedBytes divided by SentBytes; 0 if nothing was sent.
	SavedRatio float64 `json:"saved_ratio"`
	// ReceivedBytes counts the bytes that clients uploaded.
	ReceivedBytes int64 `json:"received_bytes"`
	// Requests counts the GET requests of clients for manifests and blobs.
	Requests int64 `json:"requests"`
	// Opens counts the readers of blobs by the source of their bytes: memory, disk, origin (a fetch
	// for this reader, or a prefetch that no earlier reader uses), flight (a fetch that was under way
	// for another reader; printed as "shared"), direct (passed through uncached). A prefetch is not a
	// reader.
	Opens map[string]int64 `json:"opens"`
	// HitRatio is the share of the readers in Opens whose bytes were held, in memory or on disk; 0 if
	// there was no reader.
	HitRatio float64 `json:"hit_ratio"`
	// Upstreams counts the bytes sent to clients, by upstream and source, in the words of X-Cache.
	Upstreams map[string]map[string]int64 `json:"upstreams"`
}
