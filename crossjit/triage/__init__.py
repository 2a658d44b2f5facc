"""Which layer a failure belongs to: experiments, reruns and the rules that decide."""
