"""What a server's teacher said, without torch: python read_records.py SERVER_URL SAMPLE_ID FILE"""

import sys

from kdcache.client import Client

with Client(sys.argv[1]) as client:  # the token is the environment's KDCACHE_TOKEN
    print(client.ready(), [entry.name for entry in client.caches()])
    answer = client.records(ids=[sys.argv[2]], views=[0, 1])  # or rows; raw=True leaves them packed
    print(answer["logits"].shape)  # float32 [views, records, classes]
    client.download_view(0, sys.argv[3])  # goes on where it broke off; its checksum is looked at
