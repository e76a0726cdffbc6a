package main

// evictionPage is the text of docs/eviction.md. Its placeholders stand for the number of requests
// in a trace, the number of seeds, the table, and the list of workloads.
const evictionPage = "# Which blobs leave the cache\n" + `
When the quota of the cache (` + "`cache.max_bytes`" + `) is used up, dray evicts blobs to make room. This
page describes the order of eviction, compares it with other policies, and shows how to find the
right quota from your own log. ` + "`go run ./cmd/draybench simulate -page docs/eviction.md`" + ` writes the
numbers on this page. To compute dray's row of the table, the simulation runs dray's own eviction
code, but stores no files.

## The order

The cache has two pools. One pool has the blobs of 1 MiB and more, and the other pool has the
smaller blobs: manifests, configurations and small layers. dray evicts from each pool separately.
2 %% of the quota is reserved for the small blobs. This share is enough for nearly all small blobs:
they get most of the requests, but are a small part of the bytes.

Each pool has two queues, as in [S3-FIFO](https://s3fifo.com):

- A new blob waits in a first queue, which may take a tenth of the pool. If dray needs room and this
  queue is full, dray takes its oldest blob. If a client requested this blob while it waited, dray
  moves it to the main queue. Otherwise dray evicts it.
- A blob that comes back soon after its eviction from the first queue goes to the main queue at
  once.
- If the first queue is not full, dray takes the oldest blob of the main queue. If clients requested
  this blob in the main queue, it gets another round: it becomes the newest blob of the queue. It
  gets one round for each request, but at most three. A blob without rounds is evicted.

A hit only increases a counter, up to three, and changes no list. At most once an hour for each
blob, it also writes the time of the last use to the file.

dray never evicts a blob that is open, that a push needs, or that an operator has pinned
(` + "`dray pin`" + `).

` + "`dray evict --dry-run`" + ` lists the blobs that dray would evict next, and the reason for each. It lists
20 blobs, or enough blobs to free the bytes that you set with ` + "`--bytes`" + `, but at most 10,000. The
list assumes that no client requests a blob in the meantime. If the list covers a large part of the
cache, it also has blobs that ` + "`dray ls --blobs`" + ` shows with hits and a recent use. These blobs come
last, because eviction first gives each of them a round for each hit. Their reason is "requested
before, but its rounds of eviction are used up". When dray has just started, all blobs count as new:
they have no hits, and dray evicts them in the order of their last use.

## How it compares

The table shows the mean of synthetic traces, %[2]d of each kind with %[1]d requests each. The first
fifth of a trace fills the cache and does not count. The size of the cache is a share of the bytes
of all objects in the trace. Each cell has three numbers, in percent: the share of requests that are
hits / the share of bytes that are hits / how much the cache shortens the time of waiting for the
upstream. A miss costs 50 ms, and its bytes arrive at 100 MB/s.

%[3]s
%[4]s
The sizes of layers follow those in public registries: 65 %% below 1 MB, 80 %% below 10 MB, 3 %% from
100 MB to 1 GB. Your clients will be a mixture of the three kinds.

- **Bytes** are what you pay for if the upstream charges for egress. **Waiting** is what clients
  notice. **Requests** are what a registry with limits counts.
- The pool for small blobs gives dray more request hits than S3-FIFO has, and costs hardly any byte
  hits. Without this pool, one large layer evicts hundreds of manifests.
- Belady's policy knows the future, but does not consider sizes. In the table it saves the most
  bytes. A policy that prefers small blobs can have more request hits.
- In these traces, a cache of twice the size saves four to ten percentage points more of the bytes.
  dray's policy saves two to fourteen percentage points more bytes than FIFO. If the simulation of
  your own log shows little difference between two sizes, the smaller one is large enough.

## Your own log

Unless ` + "`log.access`" + ` is off, dray writes a line for each request to standard error, as text or as
JSON. These lines have all fields that the simulation needs (` + "`kind`, `method`, `status`, `digest`" + ` or
` + "`reference`, `bytes`, `size`" + `). Run it on your log:

` + "```console" + `
$ journalctl -u dray -o cat | go run ./cmd/draybench simulate -log - -sizes 2%%,5%%,10%%,20%%
$ go run ./cmd/draybench simulate -log monday.log -log tuesday.log
` + "```" + `

The simulation prints the same table for your log, with the sizes in GB, and the number of lines
that it could not use. The log should be long enough to fill the largest cache several times.
If a client requests several ranges of a blob, each within a minute of the previous one, they count
as one request.

To use a log of another program, convert it to CSV, with one request in each line and in the order
of time. The size is in bytes:

` + "```" + `
digest,size
sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855,1048576
` + "```" + `
`
