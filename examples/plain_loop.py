"""Distil a student in a plain PyTorch loop: python plain_loop.py CACHE_URL DATA_SPEC"""

import sys

import torch
from torch.utils.data import DataLoader

import kdcache
from trainer.students import cnn3

cache = kdcache.TeacherCache.open(sys.argv[1])
dataset = kdcache.ReplayDataset(cache, sys.argv[2])  # the views the teacher saw, checked against the cache
loader = DataLoader(dataset, batch_size=64, shuffle=True)
seen, views = cache.manifest.input, cache.manifest.views.count
normalise = kdcache.Normalise(seen.mean, seen.std)
decode, kd = kdcache.RecordDecoder(cache.codec), kdcache.LOSSES["kd"](temperature=4.0)
student = cnn3(num_classes=cache.manifest.classes)  # any model from pictures to logits
optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)

for epoch in range(6):
    dataset.set_epoch(epoch)  # epoch e sees view e mod V
    for batch in loader:
        records = torch.from_numpy(cache.fetch(epoch % views, batch.row))
        loss = kd(student(normalise(batch.image)), decode(records), batch.label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
torch.save(student.state_dict(), "student.pt")
