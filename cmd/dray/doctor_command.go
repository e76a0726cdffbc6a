package main

import (
	"cmp"
	"log/slog"
	"os"
	"time"

	"dray/cache/meta/redis"
	"dray/cmd/dray/config"
	"dray/cmd/dray/doctor"
	"dray/cmd/dray/examine"
	"dray/cmd/dray/watched"
)

// layerHost is the URL that tests use in place of the hosts that send the layers of ECR.
var layerHost string

// pathPatience is the Patience of [examine.Parts]; 0 means the default. Tests change it.
var pathPatience time.Duration

// doctorOptions returns options by which the doctor checks the parts that `dray serve` would use.
func doctorOptions(in *invocation) doctor.Options {
	store := func(m config.Metadata) (*redis.Store, error) {
		return openRedis(m, watched.Watching(slog.New(slog.DiscardHandler)))
	}
	// address returns the URL of an AWS service from the variables that the AWS SDK also reads.
	address := func(service string) string {
		return cmp.Or(os.Getenv("AWS_ENDPOINT_URL_"+service), os.Getenv("AWS_ENDPOINT_URL"))
	}
	return examine.Parts{
		AWS: in.aws, Redis: store, LayerHost: layerHost, EC2: address("EC2"), ServiceQuotas: address("SERVICE_QUOTAS"), Patience: pathPatience,
	}.Options(doctor.Options{
		Stdout: in.stdout, Environ: in.environ, Load: in.load, Notices: in.notices,
	})
}
