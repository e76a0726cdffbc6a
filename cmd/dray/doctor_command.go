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

// layerHost, if it is not empty, is a URL that stands for the hosts of the layers of ECR in tests.
var layerHost string

// pathPatience is how long the doctor looks for the way of layers; 0 means its default. It is there
// for tests.
var pathPatience time.Duration

// doctorOptions gives the doctor the parts that serve would use.
func doctorOptions(in *invocation) doctor.Options {
	store := func(m config.Metadata) (*redis.Store, error) {
		return openRedis(m, watched.Watching(slog.New(slog.DiscardHandler)))
	}
	// The AWS SDK takes the address of EC2 from the same variables.
	ec2 := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_EC2"), os.Getenv("AWS_ENDPOINT_URL"))
	return examine.Parts{AWS: in.aws, Redis: store, LayerHost: layerHost, EC2: ec2, Patience: pathPatience}.Options(doctor.Options{
		Stdout: in.stdout, Environ: in.environ, Load: in.load, Notices: in.notices,
	})
}
