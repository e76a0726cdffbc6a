package config

func (u Upstream) validateAcknowledge(k *Report, path string) {
	if u.Acknowledge != AcknowledgeLocal {
		return
	}
	switch {
	case u.Kind == KindLocal:
		k.Add(path+".acknowledge", "has no effect for kind local, which has no registry; remove it")
	case !u.Push:
		k.Add(path+".acknowledge", "needs push: true")
	}
}

func (q Queue) validate(k *Report) {
	if q.MaxPushes < 1 {
		k.Add("queue.max_pushes", "must be at least 1")
	}
	if q.ReportAfter <= 0 {
		k.Add("queue.report_after", "must be more than zero")
	}
}
