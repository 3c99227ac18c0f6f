"""The cache service: keeps answers and gives them to requests that may share them.

It exists so that the same answer is not paid for twice. It never reads an answer, and never serves one to another
namespace.
"""
