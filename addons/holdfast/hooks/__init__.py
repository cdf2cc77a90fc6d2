"""mitmproxy's side: one thin hook class for each stage of a request, and what runs them.

request_path  the ordered list of the stages
kube          what is asked
identity      who asks
policy        may it
masking       what must not be seen, or not be kept
approval      must somebody sign
audit         the intent, then the outcome, durable
streaming     what passes unbuffered, piece by piece through its taps
taps          they mask, count and record what goes by
credential    the verdict, without which there is no credential
fail_closed   what happens when a hook fails
connection    one client's connection: how hooks are called, what slows a stream down
gateway       the stages, opened from the settings
listener      the certificate that callers see
lifecycle     opens the gateway before there is a listener, closes it after
serve         `holdfast serve`
flowfile      the record as a mitmproxy flow file
"""
