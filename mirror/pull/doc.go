// Package pull answers the requests that read: manifests by tag and by digest, blobs, and the lists
// of tags and referrers.
//
// It asks repository where content is, the cache for bytes, facts (cache/meta) for what a tag
// means, and the upstream for the rest. A tag is served without a question while its fact is fresh,
// and the old answer for a while longer while the upstream is asked in the background. What is
// asked for again and again is answered from memory, under a lease on the facts that it was made
// of. What an image consists of is fetched before the client asks for it. Jobs learn of each pull.
// A client that may push (identity) does not wait for an upstream that gives no answer.
package pull
