"""The field's vocabulary: ids, geometry, bitfields, endpoints, rates, errors. Level 0."""
