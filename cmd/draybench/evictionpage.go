package main

// evictionPage is docs/eviction.md: requests of a trace, seeds, the table, the workloads.
const evictionPage = "# Which blobs leave the cache\n" + `
What dray evicts when its quota (` + "`cache.max_bytes`" + `) is used up, what that is worth, and how to find out for one's own clients which quota is worth its disk. The numbers on this page are written by
` + "`go run ./cmd/draybench simulate -page docs/eviction.md`" + `; what is simulated for dray is the code that runs in dray, without files.

## The order

Blobs of 1 MiB and more, and smaller ones (manifests, configurations, small layers), are evicted apart from each other. The small ones are sure of 2 %% of the quota, which is more than enough for nearly all of them: they are a small part of
the bytes and most of the requests. In each of the two pools a new blob waits in a queue that may take a tenth of the pool ([S3-FIFO](https://s3fifo.com)). What nobody asks for there leaves first; what is asked for moves on to the main queue, and so does what comes back
soon after it left. The main queue gives each blob another round for each time it was asked for, three at most. A hit counts up to three and does nothing else: no list, no lock, no write.

What is open, needed by a push, or pinned by an operator (` + "`dray pin`" + `) is never evicted. ` + "`dray evict --dry-run`" + ` says what goes next, and why.

The dry run turns the queues, on paper, until it has found what it was asked for, as if nobody asked for anything meanwhile. In a cache that holds few blobs it may so come to those that ` + "`dray ls --blobs`" + ` shows with hits and a use just now: behind the others, after as many turns
as they have hits. "Asked for before, and the rounds for that are over by its turn" means just that. After a start all blobs are new ones again, with no hits, in the order of their last use.

## How it compares

Mean of synthetic traces, %[2]d of each kind with %[1]d requests each; the first fifth fills the cache and does not count. The size of the cache is a share of the room that everything in the trace takes together. In each cell: requests that are hits / bytes that are hits / share of the waiting for the upstream that
is saved, in percent, where a miss costs 50 ms and its bytes at 100 MB/s.

%[3]s
%[4]s
Sizes of layers are those found in public registries (65 %% below 1 MB, 80 %% below 10 MB, 3 %% from 100 MB to 1 GB). Real clients are none of the three; they lie somewhere between.

- **Bytes** are what one pays for where the upstream charges for egress. **Waiting** is what clients feel. **Requests** are what a registry with limits counts.
- The pool for small blobs costs next to no bytes and gives nearly all of the additional hits: without it one large layer pushes out hundreds of manifests.
- Belady's policy knows the future and no sizes. Nothing without such knowledge does better in bytes; in requests a policy that prefers small blobs can.
- Twice the disk is worth four to nine points of bytes here, an order of eviction better than the plainest three to fourteen. Where two sizes of one's own log differ little, the disk is large enough.

## One's own log

dray writes a line for each request to standard error, unless ` + "`log.access`" + ` is off. As text or as JSON, those lines have all that is needed (` + "`kind`, `method`, `status`, `digest` or `reference`, `bytes`, `size`" + `):

` + "```console" + `
$ journalctl -u dray -o cat | go run ./cmd/draybench simulate -log - -sizes 2%%,5%%,10%%,20%%
$ go run ./cmd/draybench simulate -log monday.log -log tuesday.log
` + "```" + `

It prints the same table, with the sizes in GB, and how many lines it could not use. Take a log that is long enough for the largest size to fill several times over. Requests for ranges of a blob by one client within a minute of each other are one request.

Other logs can be brought into the form of CSV, one request a line in order of time, ` + "`digest,size`" + ` with the size in bytes:

` + "```" + `
digest,size
sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855,1048576
` + "```" + `
`
